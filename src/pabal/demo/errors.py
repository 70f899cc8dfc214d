"""The errors of the demo; each message says what to do next."""

from __future__ import annotations

from pabal.errors import PabalError, UsageError


class TapeError(PabalError):
    """A tape cannot be played. Fields: ``path, line, column, reason``.

    The whole tape is checked before its first event is published, so none was.
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
    """A demo file does not match the options given. Fields: ``path, reason``."""

    path: str
    reason: str
    template = "{path}: {reason}"


class ImpossiblePriceError(PabalError):
    """A handler got a tick or candle with impossible prices: the demo's poison event."""


class ExchangeUnavailableError(PabalError):
    """The paper exchange is unavailable; a retry helps. Fields: ``order_id, attempt``."""

    order_id: str
    attempt: int
    template = "unavailable for order {order_id}"


class OversoldError(PabalError):
    """A fill sells more than is held. Fields: ``symbol, held, sold``."""

    template = "a fill sells {sold} of {symbol}, but only {held} is held"
