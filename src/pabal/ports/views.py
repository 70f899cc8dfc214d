"""What an operator sees of a bus: plain values that can all be encoded as JSON.

Times are aware, in UTC. A *cursor* is a text that marks a place in the log; only the source that returned it
can interpret it. In a log with positions it is the position. Of two cursors of one source, the longer one is
later; if equally long, the one that is greater as text.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, get_args

import msgspec

from pabal.ports.storage import AttemptFailure, SubscriptionRecord

Action = Literal["pause", "resume", "reset", "replay", "retry", "edit", "discard", "remove", "rebuild"]
"""The actions that a source may offer."""
ALL_ACTIONS: frozenset[Action] = frozenset(get_args(Action))

Level = Literal["ok", "degraded", "failing"]


class Target(msgspec.Struct, frozen=True):
    """The bus or log being looked at."""

    kind: str
    """``sqlite``, ``memory``, ``redis`` …"""
    address: str
    """A path or a URL without credentials."""
    live: bool
    """True for a bus in this process; False for the log of a bus that runs elsewhere, or does not run."""
    has_log: bool
    """False for a bus without storage: it has subscriptions and dead letters, but no events to list."""


class Reason(msgspec.Struct, frozen=True):
    """A reason why a bus is not ok. ``code`` is stable and can be translated; ``text`` is a sentence."""

    code: str
    level: Level
    text: str
    subscription: str | None = None
    number: int = 0


class Totals(msgspec.Struct, frozen=True):
    """Totals: what is in the log now, and counts since the start of a live bus (otherwise None)."""

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
    """The state of a bus at a glance."""

    target: Target
    as_of: datetime
    health: Level
    reasons: tuple[Reason, ...]
    totals: Totals
    published_per_second: float
    """The rate over the last minute, from the log."""
    subscriptions: int
    lag: int
    """The largest lag of any subscription."""
    in_flight: int
    retries: int
    parked: int
    """All dead letters, also those that belong to no subscription."""
    queued: int
    actions: tuple[Action, ...]
    """The actions that are possible here."""


class SubscriptionView(msgspec.Struct, frozen=True):
    """A subscription. Values known only to the process that handles it are None elsewhere.

    ``state`` is ``active``, ``starting``, ``standby`` (another process handles it), ``halted``, ``paused``,
    or ``idle`` (no process handles it now).
    """

    name: str
    state: str
    watermark: int
    frontier: int
    lag: int
    """Events in the log that are not finished here, including those that wait for a retry."""
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
    """Return how many events a subscription has not finished, in a log from ``first`` (0: empty) to ``head``.

    Events that were trimmed are not counted, although a subscription reset to the beginning stands before
    them.
    """
    return max(0, head - max(record.frontier, first - 1)) + record.unfinished


def stored_view(record: SubscriptionRecord, first: int, head: int) -> SubscriptionView:
    """Return a subscription as stored, in a log from ``first`` (0: empty) to ``head``."""
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
    """Select events; a field that is not set does not restrict.

    ``types`` are names or patterns such as ``order.*``; times are those at which an event entered the log,
    ``since`` included and ``until`` excluded.
    """

    types: tuple[str, ...] = ()
    aggregate_type: str | None = None
    aggregate_id: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class EventView(msgspec.Struct, frozen=True):
    """An event as stored. ``payload`` and ``metadata`` are left out of JSON if they were not requested."""

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
    """A page of events, newest first, with the cursors of the pages around it (None: there is none)."""

    events: tuple[EventView, ...]
    older: str | None
    """The value of ``before`` for the next page of older events."""
    newer: str | None
    """The value of ``after`` for the next page of newer events."""


class DeliveryView(msgspec.Struct, frozen=True):
    """The state of one event at one subscription, as far as it is known.

    ``state`` is ``finished`` (handled, or not wanted: the log does not tell these apart), ``pending``,
    ``retrying``, ``parked`` or ``queued`` (behind a dead letter of its key).

    For a delivery that succeeded after failed attempts, a log keeps these attempts and the time of success,
    for the newest 10,000 of them. A server keeps neither.
    """

    subscription: str
    state: str
    attempts: int = 0
    due_at: datetime | None = None
    failures: tuple[AttemptFailure, ...] = ()
    dead_letter_id: int | None = None
    finished_at: datetime | None = None
    """The time of its success, if attempts had failed before."""


class EventDetail(msgspec.Struct, frozen=True):
    """An event with its deliveries, its cause and its effects."""

    event: EventView
    deliveries: tuple[DeliveryView, ...]
    cause: EventView | None
    effects: tuple[EventView, ...]
    """Events that name this one as their cause, oldest first."""


class TraceNode(msgspec.Struct, frozen=True):
    """An event and the events it caused."""

    event: EventView
    effects: tuple[TraceNode, ...]


class Trace(msgspec.Struct, frozen=True):
    """All events of one correlation id as a tree of causes; with several roots if a cause is missing."""

    correlation_id: str
    roots: tuple[TraceNode, ...]
    count: int
    complete: bool
    """False if there are more events than were read."""


class StreamView(msgspec.Struct, frozen=True):
    """An aggregate that has events, and its current version."""

    aggregate_id: str
    aggregate_type: str
    version: int


class StreamPage(msgspec.Struct, frozen=True):
    """A page of aggregates by id, and the cursor of the next page (None: this is the last)."""

    streams: tuple[StreamView, ...]
    next: str | None


class RebuildView(msgspec.Struct, frozen=True):
    """Tables being built beside the live ones, or left by an interrupted rebuild."""

    version: int
    position: int
    lag: int


class ProjectionView(msgspec.Struct, frozen=True):
    """What a file contains of a projection. It does not show whether the projection is running.

    ``position`` is the last one saved: if few events concern the projection, the real one may be up to 10,000
    ahead, and ``lag`` too high by as much.
    """

    name: str
    version: int | None
    """None, with position 0, until its tables are first built."""
    position: int
    lag: int
    """How many positions the log is ahead."""
    tables: tuple[str, ...]
    rebuild: RebuildView | None
    rows: dict[str, int] | None = None
    """Row counts by table, if they were requested; a missing table is left out."""


class DeadLetterFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Select dead letters; a field not set does not restrict. ``error_type`` is that of the last attempt."""

    subscription: str | None = None
    event_type: str | None = None
    error_type: str | None = None


class DeadLetterView(msgspec.Struct, frozen=True):
    """A delivery that was given up, with every failed attempt."""

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
    """A page of dead letters by id, and the id to continue after (None: this is the last)."""

    dead_letters: tuple[DeadLetterView, ...]
    next: int | None


class AuditEntry(msgspec.Struct, frozen=True):
    """An action: who did what to which object, when, and with what result.

    ``result`` is empty and ``succeeded`` None while the action is under way, or if the process died during
    it.
    """

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: Any
    result: str
    succeeded: bool | None


class ResetPlan(msgspec.Struct, frozen=True):
    """What a reset of a subscription would do; positions that are no longer in the log are not counted."""

    subscription: str
    watermark: int
    """Its position now."""
    position: int
    """Its position after the reset."""
    again: int
    """How many positions would be delivered again."""
    skipped: int
    """How many positions would be skipped."""


class ActionResult(msgspec.Struct, frozen=True):
    """The result of an action.

    ``count`` is the number changed, ``skipped`` the number that matched but were left as they were. With
    ``pending``, it takes effect once the process that handles the subscription learns of it, or at its next
    start.
    """

    action: str
    subject: str
    count: int
    skipped: int = 0
    pending: bool = False
    position: int | None = None
    """The new position of a reset subscription or a rebuilt projection."""
