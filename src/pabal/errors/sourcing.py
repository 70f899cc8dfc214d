"""Errors of aggregates, their snapshots, and read models (projections)."""

from __future__ import annotations

from pabal.errors.base import PabalError
from pabal.errors.events import InvalidEventError
from pabal.errors.usage import UsageError


class AggregateDefinitionError(UsageError):
    """Report an aggregate class that cannot work as written. Field: ``aggregate``."""

    aggregate: str
    template = "aggregate {aggregate}: {detail}"


class EventNotAppliedError(UsageError):
    """Report an event that no method of an aggregate applies. Fields: ``aggregate, event_type``."""

    aggregate: str
    event_type: str
    template = (
        "{aggregate} has no @applies({event_type}) method; add one "
        "(an empty one, if the event changes nothing)"
    )


class SpoiledAggregateError(UsageError):
    """Report an aggregate that failed halfway and no longer matches its history.

    Fields: ``aggregate, aggregate_id``.
    """

    aggregate: str
    aggregate_id: str
    template = (
        "{aggregate} {aggregate_id!r} raised after recording events; the events were discarded, "
        "but its state has already changed: load it again"
    )


class EventWithoutAggregateError(InvalidEventError):
    """Report a recorded event that names no aggregate. Fields: ``aggregate, event_type``."""

    aggregate: str
    event_type: str
    template = (
        "{aggregate} recorded an event {event_type!r} without aggregate_id; "
        "give the event class an aggregate_id property that returns the id of the aggregate"
    )


class EventOfOtherAggregateError(InvalidEventError):
    """Report a recorded event that belongs to another aggregate. Fields: ``event_type, found, wanted``."""

    event_type: str
    found: str
    wanted: str
    template = "event {event_type!r} belongs to {found}, but {wanted} recorded it"


class AggregateNotFoundError(PabalError):
    """Report an aggregate without events. Fields: ``aggregate_type, aggregate_id``."""

    aggregate_type: str
    aggregate_id: str
    template = "there is no {aggregate_type} {aggregate_id!r}: the log holds no event of it"


class SnapshotError(PabalError):
    """Report a snapshot that cannot be used; a repository replays the events instead. Field: ``reason``."""

    reason: str
    template = "the snapshot cannot be used: {reason}"


class SnapshotOfOtherClassError(SnapshotError):
    """Report a snapshot that belongs to another class. Fields: ``found, reason, wanted``."""

    found: str
    wanted: str
    template = "the snapshot is of {found}, not of {wanted}; delete it, or load it with its own class"


class ProjectionNotFoundError(PabalError):
    """Report a projection of which a file has no data. Fields: ``name, known`` (the existing names)."""

    name: str
    known: str
    template = "there is no projection {name!r}; known projections: {known}"


class ProjectionDefinitionError(UsageError):
    """Report a projection class that cannot work as written. Field: ``projection``."""

    projection: str
    template = "projection {projection}: {detail}"


class ProjectionError(PabalError):
    """Report a projection that cannot go on; its tables are left as they are.

    Fields: ``projection, reason``.
    """

    projection: str
    reason: str
    template = "projection {projection!r} cannot continue: {reason}"


class ProjectionHandlerError(ProjectionError):
    """Report that a handler of a projection raised.

    Fields: ``event_type, position, projection, reason``.
    """

    event_type: str
    position: int
    template = (
        "projection {projection!r} stopped before position {position}: its handler for {event_type!r} "
        "raised {reason}; nothing of the batch was written. Fix the handler, raise the projection's version "
        "if its tables have changed, and start it again"
    )


class EventNotProjectedError(ProjectionError):
    """Report an event that a projection does not know, found during a rebuild.

    Fields: ``event_type, position, projection, reason``.
    """

    event_type: str
    position: int
    template = (
        "projection {projection!r} cannot be rebuilt: {reason} {event_type!r} at position {position}. "
        "Import its class, add a @projects method, or list it under ignores"
    )
