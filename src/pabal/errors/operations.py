"""Errors of looking at a bus and steering it."""

from __future__ import annotations

from pabal.errors.base import PabalError
from pabal.errors.usage import UsageError


class InvalidFilterError(UsageError):
    """Report a filter that cannot be read. Fields: ``field, value, reason``."""

    field: str
    value: str
    reason: str
    template = "{field}={value!r} is no filter: {reason}"


class EventNotFoundError(PabalError):
    """Report an event id that the log does not hold. Field: ``event_id``."""

    event_id: str
    template = "there is no event {event_id}; it was never published here, or retention has deleted it"


class ActionNotPossibleError(PabalError):
    """Report an action that cannot be done here or now. Fields: ``action, subject, reason``."""

    action: str
    subject: str
    reason: str
    template = "cannot {action} {subject}: {reason}"
