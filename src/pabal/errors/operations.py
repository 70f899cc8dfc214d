"""Errors of inspecting and controlling a bus."""

from __future__ import annotations

from pabal.errors.base import PabalError
from pabal.errors.usage import UsageError


class InvalidFilterError(UsageError):
    """Report a filter that cannot be understood. Fields: ``field, value, reason``."""

    field: str
    value: str
    reason: str
    template = "{field}={value!r} is not a valid filter: {reason}"


class EventNotFoundError(PabalError):
    """Report an event id that is not in the log. Field: ``event_id``."""

    event_id: str
    template = "there is no event {event_id}; it was never published here, or retention has deleted it"


class ActionNotPossibleError(PabalError):
    """Report an action that is not possible here or now. Fields: ``action, subject, reason``."""

    action: str
    subject: str
    reason: str
    template = "cannot {action} {subject}: {reason}"
