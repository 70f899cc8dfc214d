"""The values that pass between a bus and its storage."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec

from pabal.domain.envelope import StoredRecord, to_microseconds
from pabal.domain.event import DomainEvent

Start = Literal["now", "beginning"] | int | datetime
"""Where a subscription begins: at the log's end or beginning, after a position, or at the first event stored
at or after an aware time."""


class Capabilities(msgspec.Struct, frozen=True):
    """What a backend can do; the conformance suite selects its cases by it."""

    persistent: bool
    """The log survives the end of the process."""
    shared: bool
    """Several processes may open the log at once; subscriptions are leased."""
    versioned: bool = True
    """Keeps versioned streams of aggregates: it is an event store, not only a carrier of events."""
    searchable: bool = True
    """Finds events by type, aggregate, chain of causes and time (``LogQueries``)."""
    controllable: bool = True
    """Subscriptions can be paused, moved and replayed from any process (``SubscriptionControl``).

    A bus calls that port in any case. If this is False, ``add_control_listener`` returns a function that does
    nothing, ``read_controls`` an empty list, ``poll_controls`` False and ``note_halt`` True.
    """
    aggregates: bool = False
    """Appends to several streams at once, and keeps histories and snapshots (``AggregateStorage``)."""
    inspectable: bool = False
    """Shows operators the state of each delivery, with its failed attempts (``deliveries_at``)."""


PROCESS_DIED = "ProcessDied"
"""The ``error_type`` of an attempt during which the process died, when no other attempt was in flight."""
DIED_AMONG_OTHERS = "ProcessDiedAmongOthers"
"""The same if other attempts were in flight too, any of which may be to blame."""


class AttemptFailure(msgspec.Struct, frozen=True):
    """A failed attempt: its number from 1, when it ended (aware, UTC), and the error."""

    attempt: int
    failed_at: datetime
    error_type: str
    message: str
    traceback: str


class PendingRetry(msgspec.Struct, frozen=True):
    """An unfinished delivery that was attempted; ``due_at`` is its next attempt (seconds since 1970)."""

    position: int
    attempts: int
    due_at: float
    failures: tuple[AttemptFailure, ...] = ()
    from_dead_letter: bool = False


class ParkedDelivery(msgspec.Struct, frozen=True):
    """A delivery that becomes a dead letter at ``parked_at`` (seconds since 1970).

    With ``blocks``, later events of ``key`` wait behind it.
    """

    position: int
    reason: str
    failures: tuple[AttemptFailure, ...]
    parked_at: float
    record: StoredRecord | None
    """The row as it is in the log; if None, the storage copies it from there."""
    event: DomainEvent | None = None
    key: str | None = None
    blocks: bool = False


RECOVERIES_KEPT = 10_000
"""How many recovered deliveries a storage keeps at most, the newest ones; each with all its failures."""


class RecoveredDelivery(msgspec.Struct, frozen=True):
    """A delivery that succeeded after failed attempts; ``attempts`` includes the one that succeeded."""

    position: int
    attempts: int
    failures: tuple[AttemptFailure, ...]
    finished_at: float
    """Seconds since 1970."""


class DeadLetterRecord(msgspec.Struct, frozen=True):
    """A dead letter as stored; times are aware, in UTC."""

    id: int
    subscription: str
    position: int
    record: StoredRecord | None
    """The row with its original bytes; None on a bus without storage, where nothing is encoded."""
    event: DomainEvent | None
    """The event, if ``record`` is None."""
    reason: str
    failures: tuple[AttemptFailure, ...]
    parked_at: datetime
    state: Literal["parked", "retrying"]
    key: str | None
    queued: int
    """How many events of the same key wait behind it."""

    @property
    def error_type(self) -> str | None:
        """Return the type of the error that ended the last attempt; None if there was no attempt."""
        return self.failures[-1].error_type if self.failures else None


class Replay(msgspec.Struct, frozen=True):
    """A request to deliver a range of the log once more, to one subscription alone."""

    id: int
    subscription: str
    first: int
    last: int
    watermark: int
    """Everything in the range up to here is finished."""


class Progress(msgspec.Struct):
    """How far a subscription has come, and what has changed since the last save.

    All positions up to ``frontier`` are finished, except those in ``unfinished``; ``watermark`` is below the
    lowest of these.
    """

    name: str
    epoch: int
    watermark: int
    frontier: int
    unfinished: tuple[int, ...] = ()
    retries: tuple[PendingRetry, ...] = ()
    cleared: tuple[int, ...] = ()
    """Positions whose retry, if one is stored, is over."""
    recovered: tuple[RecoveredDelivery, ...] = ()
    """Those of ``cleared`` that succeeded after failed attempts, whether or not the failures were ever saved.

    A storage that is ``inspectable`` keeps the newest ``RECOVERIES_KEPT``.
    """
    parked: tuple[ParkedDelivery, ...] = ()
    queued: tuple[tuple[str, int], ...] = ()
    """(key, position) of events queued behind a parked one."""
    replayed: tuple[tuple[int, int], ...] = ()
    """(id, watermark) of replays that have progressed; one that reached its last position is over."""


class Cursor(msgspec.Struct, frozen=True):
    """What a storage knows about a subscription when it is opened."""

    name: str
    number: int
    epoch: int
    watermark: int
    frontier: int
    unfinished: tuple[int, ...]
    retries: tuple[PendingRetry, ...]
    blocked_keys: tuple[str, ...]
    """Keys blocked by dead letters, and keys that still have a queue."""
    paused: bool = False
    replays: tuple[Replay, ...] = ()
    """Ranges to be delivered again before the subscription goes on, oldest request first."""
    reopenings: int = 0
    """How often its holder has been asked, so far, to open it again."""


class Move(msgspec.Struct, frozen=True):
    """A request to move a cursor to a position, or, for None, to the head of the log at that time."""

    position: int | None

    @property
    def start(self) -> Start:
        """Return the target in the form that ``reset_subscription`` takes."""
        return "now" if self.position is None else self.position


class Control(msgspec.Struct, frozen=True):
    """The requests that were made for a subscription, by any process."""

    name: str
    paused: bool
    replays: tuple[Replay, ...]
    reopenings: int = 0
    move: Move | None = None
    """The move that was requested while a process held the subscription."""
    halted: bool = False
    """It is recorded as halted. A process that halted it and finds no record knows that it was resumed."""


class SubscriptionRecord(msgspec.Struct, frozen=True):
    """A durable subscription as stored, whether or not anything subscribes under its name now."""

    name: str
    watermark: int
    frontier: int
    unfinished: int
    """Positions unfinished below the frontier, or queued behind a parked one; none above it is counted."""
    retries: int
    parked: int
    queued: int
    owner: str | None
    epoch: int
    updated_at: datetime
    paused: bool = False
    replays: tuple[Replay, ...] = ()
    created_at: datetime | None = None
    halted: str = ""
    """The reason why it has halted, if that is recorded."""


class DeadLetterGroup(msgspec.Struct, frozen=True):
    """A count of dead letters with the same subscription and type of the last error."""

    subscription: str
    error_type: str | None
    """None if there was no attempt."""
    count: int
    first_parked_at: datetime
    last_parked_at: datetime
    newest_id: int


class GroupsByError:
    """Count dead letters by subscription and type of the last error, page by page, without keeping them."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str | None], DeadLetterGroup] = {}

    def add(self, letters: Iterable[DeadLetterRecord]) -> None:
        """Count a page of dead letters."""
        found = self._found
        for letter in letters:
            at, key = letter.parked_at, (letter.subscription, letter.error_type)
            known = found.get(key)
            if known is None:
                found[key] = DeadLetterGroup(*key, 1, at, at, letter.id)
                continue
            found[key] = DeadLetterGroup(
                *key,
                known.count + 1,
                min(at, known.first_parked_at),
                max(at, known.last_parked_at),
                max(letter.id, known.newest_id),
            )

    def groups(self) -> list[DeadLetterGroup]:
        """Return the groups, the largest first."""
        found = self._found.values()
        return sorted(found, key=lambda group: (-group.count, group.subscription, group.error_type or ""))


class LogFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Select events of the log; a field that is not set does not restrict.

    Times are those at which an event entered the log, ``since`` included and ``until`` excluded. A
    correlation id also selects the event with that id: the root of the chain.
    """

    types: tuple[str, ...] = ()
    aggregate_id: str | None = None
    aggregate_type: str | None = None
    """Only valid together with ``aggregate_id``."""
    correlation_id: str | None = None
    causation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def admits(self, row: StoredRecord) -> bool:
        """Return whether a row is selected."""
        return (
            (not self.types or row.event_type in self.types)
            and self.aggregate_id in (None, row.aggregate_id)
            and self.aggregate_type in (None, row.aggregate_type or "")
            and self.correlation_id in (None, row.correlation_id, row.id_text)
            and self.causation_id in (None, row.causation_id)
            and (self.since is None or row.recorded_at >= to_microseconds(self.since))
            and (self.until is None or row.recorded_at < to_microseconds(self.until))
        )


class Page(msgspec.Struct, frozen=True):
    """A section of the log: every row of the requested types above ``after`` and up to ``upto``.

    The next page begins after ``upto``; if ``upto`` equals ``after``, the log ends here.
    """

    rows: tuple[StoredRecord, ...]
    upto: int


class Committed(msgspec.Struct, frozen=True):
    """The events that a commit added, at consecutive positions from ``first``."""

    first: int
    events: tuple[DomainEvent, ...]


class StreamAppend(msgspec.Struct, frozen=True):
    """A request to append to one stream, which must be at ``expected_version`` (0: does not exist yet)."""

    aggregate_type: str
    aggregate_id: str
    expected_version: int
    events: tuple[DomainEvent, ...]
