"""The values that cross the ports of a storage: what is kept, shown and told."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec

from pabal.domain.envelope import StoredRecord, to_microseconds
from pabal.domain.event import DomainEvent

Start = Literal["now", "beginning"] | int | datetime
"""Where a subscription begins: at the log's end or beginning, after a position, or at the first event that
was stored at an aware time or later."""


class Capabilities(msgspec.Struct, frozen=True):
    """Declare what a backend can do; the conformance suite selects its cases by it."""

    persistent: bool
    """Survives the end of the process."""
    shared: bool
    """Several processes may open it at once; subscriptions are leased."""
    versioned: bool = True
    """Keeps streams of aggregates with versions: an event store, not only a carrier of events."""
    searchable: bool = True
    """Finds events by type, aggregate, chain of causes and time (``LogQueries``)."""
    steered: bool = True
    """Subscriptions can be paused, moved and given a range again from anywhere (``SubscriptionControl``).

    A bus asks without it, too: ``add_control_listener`` returns what does nothing then, ``read_controls`` an
    empty list, ``poll_controls`` False and ``note_halt`` True.
    """
    aggregates: bool = False
    """Appends to several streams at once, and keeps histories and snapshots (``AggregateStorage``)."""
    inspectable: bool = False
    """Tells operators what became of each delivery, with its failed attempts (``deliveries_at``)."""


PROCESS_DIED = "ProcessDied"
"""The ``error_type`` of an attempt during which the process died, with nothing else in flight."""
DIED_AMONG_OTHERS = "ProcessDiedAmongOthers"
"""The same, while other attempts were in flight too, any of which may be to blame."""


class AttemptFailure(msgspec.Struct, frozen=True):
    """Record one failed attempt: its number from 1, when it ended (aware, UTC), and with what error."""

    attempt: int
    failed_at: datetime
    error_type: str
    message: str
    traceback: str


class PendingRetry(msgspec.Struct, frozen=True):
    """Hold an unfinished delivery that was attempted: how often, and when it is due (seconds since 1970)."""

    position: int
    attempts: int
    due_at: float
    failures: tuple[AttemptFailure, ...] = ()
    from_dead_letter: bool = False


class ParkedDelivery(msgspec.Struct, frozen=True):
    """Hold a delivery that ends as a dead letter at ``parked_at`` (seconds since 1970).

    ``blocks`` keeps later events of ``key`` waiting.
    """

    position: int
    reason: str
    failures: tuple[AttemptFailure, ...]
    parked_at: float
    record: StoredRecord | None
    """The row as it stands in the log; None lets the storage copy it from there."""
    event: DomainEvent | None = None
    key: str | None = None
    blocks: bool = False


RECOVERIES_KEPT = 10_000
"""How many recovered deliveries a storage keeps at most, the newest ones; each with all its failures."""


class RecoveredDelivery(msgspec.Struct, frozen=True):
    """Tell of a delivery that succeeded after failed attempts; ``attempts`` counts the last one, too."""

    position: int
    attempts: int
    failures: tuple[AttemptFailure, ...]
    finished_at: float
    """Seconds since 1970."""


class DeadLetterRecord(msgspec.Struct, frozen=True):
    """Show a dead letter as stored; times are aware, in UTC."""

    id: int
    subscription: str
    position: int
    record: StoredRecord | None
    """The row with its original bytes; None where nothing was ever encoded (a bus without storage)."""
    event: DomainEvent | None
    """The event itself where the record is None."""
    reason: str
    failures: tuple[AttemptFailure, ...]
    parked_at: datetime
    state: Literal["parked", "retrying"]
    key: str | None
    queued: int
    """How many events of the same key wait behind it."""

    @property
    def error_type(self) -> str | None:
        """Return the kind of error that the last attempt ended with; None where there was no attempt."""
        return self.failures[-1].error_type if self.failures else None


class Replay(msgspec.Struct, frozen=True):
    """Ask that a range of the log is delivered once more, to one subscription alone."""

    id: int
    subscription: str
    first: int
    last: int
    watermark: int
    """Everything of the range up to here is finished."""


class Progress(msgspec.Struct):
    """Say how far a subscription has come, and what changed since the last save.

    All positions up to ``frontier`` are finished except those in ``unfinished``; ``watermark`` lies below
    the lowest of them.
    """

    name: str
    epoch: int
    watermark: int
    frontier: int
    unfinished: tuple[int, ...] = ()
    retries: tuple[PendingRetry, ...] = ()
    cleared: tuple[int, ...] = ()
    """Positions whose retry row, if any, is over."""
    recovered: tuple[RecoveredDelivery, ...] = ()
    """Of those, the ones that succeeded after failed attempts, whether or not these were ever saved.

    A storage that is ``inspectable`` keeps the newest ``RECOVERIES_KEPT``.
    """
    parked: tuple[ParkedDelivery, ...] = ()
    queued: tuple[tuple[str, int], ...] = ()
    """(key, position) of events that queue behind a parked one."""
    replayed: tuple[tuple[int, int], ...] = ()
    """(id, watermark) of replays that went on; one that reached its last position is over."""


class Cursor(msgspec.Struct, frozen=True):
    """Hold what a storage knows of a subscription when it is opened."""

    name: str
    number: int
    epoch: int
    watermark: int
    frontier: int
    unfinished: tuple[int, ...]
    retries: tuple[PendingRetry, ...]
    blocked_keys: tuple[str, ...]
    """Keys of dead letters that block theirs, and keys behind which something still queues."""
    paused: bool = False
    replays: tuple[Replay, ...] = ()
    """What is to be delivered again before the subscription goes on, oldest request first."""
    reopenings: int = 0
    """How often its holder was asked to take it up anew, so far."""


class Move(msgspec.Struct, frozen=True):
    """Ask for a cursor to stand elsewhere: at a position, or for None at the head of the log by then."""

    position: int | None

    @property
    def start(self) -> Start:
        """Return the place as ``reset_subscription`` takes it."""
        return "now" if self.position is None else self.position


class Control(msgspec.Struct, frozen=True):
    """Tell what was asked of a subscription, by whomever."""

    name: str
    paused: bool
    replays: tuple[Replay, ...]
    reopenings: int = 0
    move: Move | None = None
    """Where it is to stand, asked while somebody held it."""
    halted: bool = False
    """It is written down as halted. Who halted it, and finds that gone, was resumed and goes on."""


class SubscriptionRecord(msgspec.Struct, frozen=True):
    """Show a durable subscription as stored, whether or not anything subscribes under its name now."""

    name: str
    watermark: int
    frontier: int
    unfinished: int
    """Unfinished below the frontier, or queued behind a parked one; what lies above it is not counted."""
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
    """Why it has halted, where the log knows of that."""


class DeadLetterGroup(msgspec.Struct, frozen=True):
    """Count the dead letters of one subscription whose last attempt ended with one kind of error."""

    subscription: str
    error_type: str | None
    """None where there was no attempt."""
    count: int
    first_parked_at: datetime
    last_parked_at: datetime
    newest_id: int


def group_by_error(letters: Iterable[DeadLetterRecord]) -> list[DeadLetterGroup]:
    """Count dead letters by subscription and type of the last error, largest group first."""
    groups: dict[tuple[str, str | None], list[DeadLetterRecord]] = {}
    for letter in letters:
        groups.setdefault((letter.subscription, letter.error_type), []).append(letter)
    found = [
        DeadLetterGroup(
            name,
            error_type,
            len(members),
            min(letter.parked_at for letter in members),
            max(letter.parked_at for letter in members),
            max(letter.id for letter in members),
        )
        for (name, error_type), members in groups.items()
    ]
    return sorted(found, key=lambda group: (-group.count, group.subscription, group.error_type or ""))


class LogFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Choose events of the log; what is left out does not restrict.

    Times are those at which an event entered the log, ``since`` included and ``until`` not. A correlation id
    also finds the event that it is the id of: the root of the chain.
    """

    types: tuple[str, ...] = ()
    aggregate_id: str | None = None
    aggregate_type: str | None = None
    """Only together with ``aggregate_id``."""
    correlation_id: str | None = None
    causation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def admits(self, row: StoredRecord) -> bool:
        """Tell whether a row is one of those that are wanted."""
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
    """Hold a stretch of the log: every row of the wanted types above ``after`` and up to ``upto``.

    The next page begins after ``upto``; where that is what ``after`` was, the log ends here.
    """

    rows: tuple[StoredRecord, ...]
    upto: int


class Committed(msgspec.Struct, frozen=True):
    """Tell listeners what a commit added: consecutive positions from ``first``."""

    first: int
    events: tuple[DomainEvent, ...]


class StreamAppend(msgspec.Struct, frozen=True):
    """Ask for events at the end of one stream, which must be at ``expected_version`` (0: not exist)."""

    aggregate_type: str
    aggregate_id: str
    expected_version: int
    events: tuple[DomainEvent, ...]
