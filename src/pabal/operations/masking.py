"""Mask personal or secret values in payloads before they are shown."""

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
"""Replaces a value that is not shown."""

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
"""Fields that ``masked`` hides: those whose names contain one of these."""


class Masking:
    """Decide how much of a payload is shown.

    ``full`` shows everything. ``masked`` hides each field whose name contains one of ``fields`` (ignoring
    case and punctuation), at any depth, in metadata too. ``none`` shows only the names of the outermost
    fields. Messages and tracebacks of errors are shown only with ``full``. ``fields`` defaults to
    ``DEFAULT_FIELDS``. Raises UsageError for another mode.

    >>> Masking("masked").of({"order_id": "o-1", "customer": {"E-Mail": "kim@example.com"}})
    {'order_id': 'o-1', 'customer': {'E-Mail': '•••'}}
    >>> Masking("none").of({"order_id": "o-1"})
    {'order_id': '•••'}
    """

    def __init__(self, mode: Mode = "full", fields: Iterable[str] = DEFAULT_FIELDS) -> None:
        if mode not in ("none", "masked", "full"):
            raise UsageError(f"payloads is {mode!r}; it must be 'none', 'masked' or 'full'")
        self.mode: Mode = mode
        self._hidden_names = tuple(filter(None, map(_normalize, fields)))

    def of(self, value: Any) -> Any:
        """Return a payload with hidden values replaced."""
        if self.mode == "full" or value is msgspec.UNSET or value is None:
            return value
        if self.mode == "none":
            return dict.fromkeys(value, HIDDEN) if isinstance(value, dict) else HIDDEN
        return self._mask(value)

    def _mask(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: HIDDEN if self._is_hidden(name) else self._mask(inner) for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self._mask(inner) for inner in value]
        # Bytes that are not JSON cannot be searched for secret fields, so hide them all.
        return HIDDEN if isinstance(value, bytes) else value

    def _is_hidden(self, name: str) -> bool:
        normalized = _normalize(name)
        return any(hidden in normalized for hidden in self._hidden_names)

    def event(self, event: EventView) -> EventView:
        """Return an event with hidden values replaced."""
        if self.mode == "full" or (event.payload is msgspec.UNSET and event.metadata is msgspec.UNSET):
            return event
        return msgspec.structs.replace(
            event, payload=self.of(event.payload), metadata=self.of(event.metadata)
        )

    def letter(self, letter: DeadLetterView) -> DeadLetterView:
        """Return a dead letter with hidden values replaced.

        Messages and tracebacks may quote any value, so both are shown only with ``full``.
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
        """Return a delivery; unless the mode is ``full``, its errors show only their type."""
        if self.mode == "full":
            return delivery
        return msgspec.structs.replace(delivery, failures=_without_messages(delivery.failures))


def _without_messages(failures: tuple[AttemptFailure, ...]) -> tuple[AttemptFailure, ...]:
    return tuple(msgspec.structs.replace(failure, message=HIDDEN, traceback="") for failure in failures)


def _normalize(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())
