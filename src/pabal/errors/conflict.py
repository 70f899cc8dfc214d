"""Errors because another writer was first: load again, decide again."""

from __future__ import annotations

from pabal.errors.base import PabalError


class ConflictError(PabalError):
    """Report that another writer was first."""


class ConcurrencyError(ConflictError):
    """Report a stream that is at another version than expected.

    Fields: ``aggregate_type, aggregate_id, expected_version, actual_version``.
    """

    aggregate_type: str | None
    aggregate_id: str
    expected_version: int
    actual_version: int
    template = (
        "stream {aggregate_type}/{aggregate_id} is at version {actual_version}, expected {expected_version}; "
        "load it again and decide again"
    )


class DuplicateEventError(ConflictError):
    """Report an event id that is already stored with other content. Fields: ``event_id, position``."""

    event_id: str
    position: int
    template = (
        "event id {event_id} is already stored at position {position} with different "
        "content; create a new event instead of changing an old one"
    )


class LeaseLostError(ConflictError):
    """Report that another process took over a subscription. Fields: ``name, epoch``."""

    name: str
    epoch: int
    template = (
        "subscription {name!r} was taken over by another process (our lease, epoch {epoch}, has ended); "
        "progress was not saved here, and the other process continues"
    )


class SubscriptionInUseError(ConflictError):
    """Report a subscription that cannot be changed because it is being handled. Field: ``name``."""

    name: str
    template = "subscription {name!r} is in use; unsubscribe it or stop its bus, then remove it"
