"""Hide what is personal or secret in payloads before anybody sees them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from pabal.errors import UsageError
from pabal.ports.operations import DeadLetterView, DeliveryView, EventView
from pabal.ports.storage import AttemptFailure

Mode = Literal["none", "masked", "full"]
HIDDEN = "•••"
"""What stands in place of a value that is not shown."""

DEFAULT_FIELDS = (
    "password",
    "passwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "authorization",
    "credential",
    "private_key",
    "card_number",
    "cvc",
    "cvv",
    "iban",
    "account_number",
    "ssn",
    "resident_number",
    "email",
    "phone",
)
"""Names, or parts of names, of fields that ``masked`` hides."""


class Masking:
    """Decide what of a payload is shown.

    ``full`` shows everything; ``masked`` hides each field whose name contains one of ``fields`` (case and
    underscores do not count), at any depth, in metadata too; ``none`` shows no value at all, only the names
    of the outermost fields. Messages and tracebacks of errors are shown with ``full`` alone. ``fields``
    defaults to ``DEFAULT_FIELDS``. Raises UsageError for another mode.

    >>> Masking("masked").of({"order_id": "o-1", "customer": {"E-Mail": "kim@example.com"}})
    {'order_id': 'o-1', 'customer': {'E-Mail': '•••'}}
    >>> Masking("none").of({"order_id": "o-1"})
    {'order_id': '•••'}
    """

    def __init__(self, mode: Mode = "full", fields: Iterable[str] = DEFAULT_FIELDS) -> None:
        if mode not in ("none", "masked", "full"):
            raise UsageError(f"payloads is {mode!r}; it must be 'none', 'masked' or 'full'")
        self.mode: Mode = mode
        self._hidden = tuple(filter(None, map(_plain, fields)))

    def of(self, value: Any) -> Any:
        """Return what may be shown of a payload."""
        if self.mode == "full" or value is msgspec.UNSET or value is None:
            return value
        if self.mode == "none":
            return dict.fromkeys(value, HIDDEN) if isinstance(value, dict) else HIDDEN
        return self._masked(value)

    def _masked(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: HIDDEN if self._hides(name) else self._masked(inner) for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self._masked(inner) for inner in value]
        # Bytes that are no JSON cannot be looked into, so nothing says that they are harmless.
        return HIDDEN if isinstance(value, bytes) else value

    def _hides(self, name: str) -> bool:
        plain = _plain(name)
        return any(hidden in plain for hidden in self._hidden)

    def event(self, event: EventView) -> EventView:
        """Return an event with what may be shown of it."""
        if self.mode == "full" or (event.payload is msgspec.UNSET and event.metadata is msgspec.UNSET):
            return event
        return msgspec.structs.replace(
            event, payload=self.of(event.payload), metadata=self.of(event.metadata)
        )

    def letter(self, letter: DeadLetterView) -> DeadLetterView:
        """Return a dead letter with what may be shown of it.

        A message or traceback may quote any value, so both are shown with ``full`` alone.
        """
        if self.mode == "full":
            return letter
        reason = letter.reason
        for attempt in letter.attempts:
            reason = reason.replace(attempt.message, HIDDEN) if attempt.message else reason
        return msgspec.structs.replace(
            letter, event=self.event(letter.event), attempts=_without_messages(letter.attempts), reason=reason
        )

    def delivery(self, delivery: DeliveryView) -> DeliveryView:
        """Return a delivery whose errors tell their type alone, unless everything may be shown."""
        if self.mode == "full":
            return delivery
        return msgspec.structs.replace(delivery, failures=_without_messages(delivery.failures))


def _without_messages(failures: tuple[AttemptFailure, ...]) -> tuple[AttemptFailure, ...]:
    return tuple(msgspec.structs.replace(failure, message=HIDDEN, traceback="") for failure in failures)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())
