"""What an operator sees of a bus: plain values, each of which can be encoded as JSON as it is.

Times are aware and UTC. A *cursor* is a text that marks a place in the log, and that only the source which
gave it can read; for a log with positions it is the position. Of two cursors of one source, the longer is the
later one; of equal length, the greater as text.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from pabal.ports.storage import AttemptFailure, SubscriptionRecord

Action = Literal["pause", "resume", "reset", "replay", "retry", "edit", "discard", "remove", "rebuild"]
"""What a source may be able to do."""

Level = Literal["ok", "degraded", "failing"]


class Target(msgspec.Struct, frozen=True):
    """Say which bus or log is being looked at."""

    kind: str
    """``sqlite``, ``memory``, ``redis`` …"""
    address: str
    """A path or a URL without credentials."""
    live: bool
    """A bus of this process; otherwise the log of a bus that runs elsewhere, or does not run."""
    has_log: bool
    """False for a bus without storage: there are subscriptions and dead letters, but no events to list."""


class Reason(msgspec.Struct, frozen=True):
    """Say why a bus is not well. ``code`` is stable and can be translated; ``text`` is a sentence."""

    code: str
    level: Level
    text: str
    subscription: str | None = None
    number: int = 0


class Totals(msgspec.Struct, frozen=True):
    """Hold figures of the whole: what is in the log now, and since the start of a live bus (else None)."""

    events: int
    head: int
    scheduled: int = 0
    size_bytes: int | None = None
    published: int | None = None
    handled: int | None = None
    failed_attempts: int | None = None
    uptime_seconds: float | None = None
    workers: int | None = None
    is_running: bool | None = None


class Overview(msgspec.Struct, frozen=True):
    """Show how a bus is, at one glance."""

    target: Target
    as_of: datetime
    health: Level
    reasons: tuple[Reason, ...]
    totals: Totals
    published_per_second: float
    """Over the last minute, from the log."""
    subscriptions: int
    lag: int
    """The largest lag of any subscription."""
    in_flight: int
    retries: int
    parked: int
    queued: int
    actions: tuple[Action, ...]
    """What can be done here."""


class SubscriptionView(msgspec.Struct, frozen=True):
    """Show a subscription. What only the process that handles it knows is None elsewhere.

    ``state`` is ``active``, ``starting``, ``standby`` (another process handles it), ``halted``, ``paused``,
    or ``idle``: nobody handles it now.
    """

    name: str
    state: str
    watermark: int
    frontier: int
    lag: int
    """Events in the log that are not finished here, with those that wait for a retry."""
    retries: int
    parked: int
    queued: int
    """Events that wait behind a dead letter of their key."""
    paused: bool = False
    owner: str | None = None
    epoch: int = 0
    updated_at: datetime | None = None
    reason: str = ""
    in_flight: int | None = None
    handled: int | None = None
    failed_attempts: int | None = None
    skipped: int | None = None
    average_ms: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None


def lag_in(record: SubscriptionRecord, first: int, head: int) -> int:
    """Return how much of a log from ``first`` (0: empty) to ``head`` a subscription has not finished.

    What was trimmed ahead of one that was reset to the beginning never comes, and is none of them.
    """
    return max(0, head - max(record.frontier, first - 1)) + record.unfinished


def stored_view(record: SubscriptionRecord, first: int, head: int) -> SubscriptionView:
    """Show a subscription as stored, in a log that reaches from ``first`` (0: empty) to ``head``."""
    state = "paused" if record.paused else "idle" if record.owner is None else "active"
    if record.halted:
        state = "halted"
    return SubscriptionView(
        name=record.name,
        state=state,
        watermark=record.watermark,
        frontier=record.frontier,
        lag=lag_in(record, first, head),
        retries=record.retries,
        parked=record.parked,
        queued=record.queued,
        paused=record.paused,
        owner=record.owner,
        epoch=record.epoch,
        updated_at=record.updated_at,
        reason=record.halted,
    )


class EventFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Choose events; what is left out does not restrict.

    ``types`` are names or patterns such as ``order.*``; times are those at which an event entered the log,
    ``since`` included and ``until`` not.
    """

    types: tuple[str, ...] = ()
    aggregate_type: str | None = None
    aggregate_id: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class EventView(msgspec.Struct, frozen=True):
    """Show an event as stored. ``payload`` and ``metadata`` are left out of JSON where not asked for."""

    position: int | None
    cursor: str
    event_id: str
    event_type: str
    schema_version: int
    aggregate_type: str | None
    aggregate_id: str | None
    stream_version: int | None
    occurred_at: datetime
    recorded_at: datetime
    correlation_id: str | None
    causation_id: str | None
    size: int
    """Bytes of the payload."""
    payload: Any = msgspec.UNSET
    metadata: Any = msgspec.UNSET


class EventPage(msgspec.Struct, frozen=True):
    """Return a page of events, newest first, and the cursors of the pages around it (None: none there)."""

    events: tuple[EventView, ...]
    older: str | None
    """Pass as ``before`` for the next page of older events."""
    newer: str | None
    """Pass as ``after`` for the next page of newer ones."""


class DeliveryView(msgspec.Struct, frozen=True):
    """Show what became of one event at one subscription, as far as is known.

    ``state`` is ``finished`` (handled, or not wanted: the log does not tell these apart), ``pending``,
    ``retrying``, ``parked`` or ``queued`` (behind a dead letter of its key).
    A finished delivery has a row of its own only if attempts had failed: what these were, and when it
    succeeded, is kept of the newest 10,000 in a log (on a server: of none).
    """

    subscription: str
    state: str
    attempts: int = 0
    due_at: datetime | None = None
    failures: tuple[AttemptFailure, ...] = ()
    dead_letter_id: int | None = None
    finished_at: datetime | None = None
    """When it succeeded, where attempts had failed before."""


class EventDetail(msgspec.Struct, frozen=True):
    """Show one event with everything around it."""

    event: EventView
    deliveries: tuple[DeliveryView, ...]
    cause: EventView | None
    effects: tuple[EventView, ...]
    """Events that name this one as their cause, oldest first."""


class TraceNode(msgspec.Struct, frozen=True):
    """Hold an event and what it caused."""

    event: EventView
    effects: tuple[TraceNode, ...]


class Trace(msgspec.Struct, frozen=True):
    """Show all events of one correlation id as a tree of causes; several roots where a cause is missing."""

    correlation_id: str
    roots: tuple[TraceNode, ...]
    count: int
    complete: bool
    """False where there are more events than were read."""


class StreamView(msgspec.Struct, frozen=True):
    """Name an aggregate that has events, and the version it is at."""

    aggregate_id: str
    aggregate_type: str
    version: int


class StreamPage(msgspec.Struct, frozen=True):
    """Return a page of aggregates by id, and the cursor of the next (None: this was the last)."""

    streams: tuple[StreamView, ...]
    next: str | None


class RebuildView(msgspec.Struct, frozen=True):
    """Show tables that are being built beside the live ones, or that an interrupted rebuild has left."""

    version: int
    position: int
    lag: int


class ProjectionView(msgspec.Struct, frozen=True):
    """Show what a file holds of a projection. Nobody can tell from it whether the projection runs.

    ``position`` is the one that was saved last: where few events concern a projection, it may be up to
    10,000 behind the real one, and ``lag`` as much too high.
    """

    name: str
    version: int | None
    """None, and position 0, until its tables are built for the first time."""
    position: int
    lag: int
    """How many positions the log is ahead."""
    tables: tuple[str, ...]
    rebuild: RebuildView | None
    rows: dict[str, int] | None = None
    """By table, where they were counted; one that is gone is left out."""


class DeadLetterFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Choose dead letters; what is left out does not restrict. ``error_type`` is of the last attempt."""

    subscription: str | None = None
    event_type: str | None = None
    error_type: str | None = None


class DeadLetterView(msgspec.Struct, frozen=True):
    """Show a delivery that was given up, with every failed attempt."""

    id: int
    subscription: str
    event: EventView
    error_type: str | None
    reason: str
    attempts: tuple[AttemptFailure, ...]
    parked_at: datetime
    state: Literal["parked", "retrying"]
    key: str | None
    queued: int


class DeadLetterPage(msgspec.Struct, frozen=True):
    """Return a page of dead letters by id, and the id to read on after (None: this was the last)."""

    dead_letters: tuple[DeadLetterView, ...]
    next: int | None


class AuditEntry(msgspec.Struct, frozen=True):
    """Show one action: who did what to what, when, and what came of it.

    ``result`` is empty, and ``succeeded`` None, while it is under way, or where the process died in it.
    """

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: Any
    result: str
    succeeded: bool | None


class ActionResult(msgspec.Struct, frozen=True):
    """Say what an action did.

    ``count`` is how many were changed, ``skipped`` how many matched but were left as they were. ``pending``:
    it takes effect once the process that handles the subscription hears of it, or at its next start.
    """

    action: str
    subject: str
    count: int
    skipped: int = 0
    pending: bool = False
    position: int | None = None
    """Where a reset subscription, or a rebuilt projection, stands now."""
