"""What can go wrong in the demo, each with what to do next."""

from __future__ import annotations

from pabal.errors import PabalError, UsageError


class TapeError(PabalError):
    """Report a tape that cannot be played. Fields: ``path, line, column, reason``.

    The whole tape is read before the first event is published, so nothing of it was.
    """

    path: str
    line: int | None
    column: str | None
    reason: str
    template = "{where}: {reason}; nothing of the tape was published"

    def __init__(
        self,
        detail: str = "",
        /,
        *,
        path: str,
        reason: str,
        line: int | None = None,
        column: str | None = None,
        where: str = "",
    ) -> None:
        if not where:
            parts = [path]
            if line is not None:
                parts.append(f"line {line}")
            if column is not None:
                parts.append(f"column {column!r}")
            where = ", ".join(parts)
        super().__init__(detail, path=path, line=line, column=column, reason=reason, where=where)


class RunError(UsageError):
    """Report a demo file that does not fit what was asked for. Fields: ``path, reason``."""

    path: str
    reason: str
    template = "{path}: {reason}"


class ImpossiblePriceError(PabalError):
    """Be raised by a handler for a tick or candle that cannot be true: the demo's poisonous event."""


class ExchangeUnavailableError(PabalError):
    """Be raised by the paper exchange now and then; trying again helps. Fields: ``order_id, attempt``."""

    order_id: str
    attempt: int
    template = "unavailable for order {order_id}"


class OversoldError(PabalError):
    """Report a fill that sells more than is held. Fields: ``symbol, held, sold``."""

    template = "a fill sells {sold} of {symbol}, but only {held} is held"
