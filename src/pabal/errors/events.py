"""Errors about one event: refused at publish, or unreadable in the log."""

from __future__ import annotations

from typing import Any

from pabal.errors.base import PabalError


class InvalidEventError(PabalError):
    """Report an event that was refused at publish. Neither it nor its batch was stored."""


class UnregisteredEventError(InvalidEventError):
    """Report a value whose class is not a registered event. Field: ``event_class``."""

    event_class: str
    template = (
        "{event_class} is not a registered event: derive it from DomainEvent, "
        "or call register_event({event_class}, event_type=…) once"
    )


class UnserializableEventError(InvalidEventError):
    """Report a value that does not fit its field's type. Fields: ``event_type, event_id, reason``."""

    event_type: str
    event_id: str
    reason: str
    template = "event {event_type!r} ({event_id}) cannot be stored as declared: {reason}; nothing was stored"


class NonFiniteNumberError(InvalidEventError):
    """Report a NaN or infinite number. Fields: ``event_type, event_id, field, value``."""

    event_type: str
    event_id: str
    field: str
    value: Any
    template = (
        "event {event_type!r} ({event_id}) has {field} = {value}: a number in an event must be finite; "
        "check the calculation, or declare the field optional and pass None"
    )


class NaiveDatetimeError(InvalidEventError):
    """Report a datetime without an offset. Fields: ``event_type, field``."""

    event_type: str
    field: str
    template = (
        "event {event_type!r} has a naive datetime in {field}, which has no time zone; "
        "pass an aware one, for example datetime.now(timezone.utc)"
    )


class PayloadTooLargeError(InvalidEventError):
    """Report a payload above the limit. Fields: ``event_type, event_id, size, limit`` (bytes)."""

    event_type: str
    event_id: str
    size: int
    limit: int
    template = (
        "event {event_type!r} ({event_id}) has a payload of {size} bytes, the limit is {limit}; "
        "store the large part elsewhere and publish a reference, or raise max_payload_bytes"
    )


class DecodeError(PabalError):
    """Report a stored payload that its class cannot decode. Fields: ``event_type, position, reason``."""

    event_type: str
    position: int | None
    reason: str
    template = (
        "event {event_type!r} at position {position} cannot be decoded: {reason}; its bytes are kept. "
        "If the class has changed, give a new field a default, or raise schema_version and write an "
        "upcaster; then retry the dead letter, or fix its payload"
    )


class UnknownEventTypeError(DecodeError):
    """Report an event whose type has no registered class. Fields: ``event_type, position, reason``.

    The position is None if the event is in no log.
    """

    template = (
        "event type {event_type!r} (position {position}) is not registered: "
        "import the module that defines it, or, if the class was renamed, set its event_type = {event_type!r}"
    )
    in_no_log = template.replace(" (position {position})", "")
    of_pabal = (
        "event type {event_type!r} (position {position}) is not registered: it belongs to pabal itself, "
        "import pabal.cqrs"
    )

    def __init__(self, detail: str = "", /, **fields: Any) -> None:
        if str(fields.get("event_type")).startswith("pabal."):
            self.template = self.of_pabal
        elif fields.get("position") is None:
            self.template = self.in_no_log
        super().__init__(detail, **fields)
