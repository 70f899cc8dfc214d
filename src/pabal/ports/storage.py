"""What the bus needs from a log, as protocols and the values that cross them.

An implementation promises, for everything below:

- *ordered*: positions start at 1, grow by commit order, and a reader never sees a lower one after a higher;
- *durable*: a call that changes something has returned only when the change is as safe as the backend's
  declared durability says;
- *atomic*: one call is visible whole or not at all;
- *cancel-safe*: cancelling an awaiting caller leaves the change done or not done, never half;
- errors are of ``StorageError`` or as named; nothing else escapes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from pabal.domain.envelope import Envelope, StoredRecord
from pabal.domain.event import DomainEvent
from pabal.ports.control import SubscriptionControl, SubscriptionSteering
from pabal.ports.records import (
    DIED_AMONG_OTHERS,
    PROCESS_DIED,
    RECOVERIES_KEPT,
    AttemptFailure,
    Capabilities,
    Committed,
    Control,
    Cursor,
    DeadLetterGroup,
    DeadLetterRecord,
    LogFilter,
    Page,
    ParkedDelivery,
    PendingRetry,
    Progress,
    RecoveredDelivery,
    Replay,
    Start,
    StreamAppend,
    SubscriptionRecord,
)

__all__ = [
    "DIED_AMONG_OTHERS",
    "PROCESS_DIED",
    "RECOVERIES_KEPT",
    "AttemptFailure",
    "AttemptJournal",
    "Capabilities",
    "Committed",
    "Control",
    "Cursor",
    "DeadLetterGroup",
    "DeadLetterRecord",
    "DeadLetterStore",
    "EventLog",
    "EventStorage",
    "LogFilter",
    "LogQueries",
    "Page",
    "ParkedDelivery",
    "PendingRetry",
    "Progress",
    "RecoveredDelivery",
    "Replay",
    "Start",
    "StreamAppend",
    "SubscriptionControl",
    "SubscriptionRecord",
    "SubscriptionStore",
]


class AttemptJournal(Protocol):
    """Remember which deliveries are being attempted, so that a handler that kills its process is counted.

    ``begin`` and ``end`` cost well under a microsecond and survive the death of the process, not of the
    machine.
    """

    def begin(self, slot: int, subscription: int, first: int, last: int, attempt: int) -> None:
        """Note that ``slot`` starts an attempt on ``first`` … ``last``."""

    def reserve(self, slots: int) -> int:
        """Make room for this many more slots and return the number of the first."""
        ...

    def end(self, slot: int) -> None:
        """Note that the slot's attempt is over."""


class EventSink(Protocol):
    """Take events in, at once or when they are due."""

    capabilities: Capabilities

    def append_events(self, events: Sequence[DomainEvent]) -> Awaitable[list[int]]:
        """Append events in order, all or none; the positions come when they are stored.

        An event stored already with the same content keeps its first position and is not appended again.
        Raises InvalidEventError, DuplicateEventError, StorageError.
        """
        ...

    async def schedule_event(self, event: DomainEvent, due_at: float) -> None:
        """Store an event that enters the log at ``due_at`` (seconds since 1970).

        One that is scheduled or stored already stays as it is. Raises InvalidEventError, DuplicateEventError
        for an id with other content, UsageError for a time that is no finite number, StorageError.
        """
        ...

    async def release_due(self, now: float) -> float | None:
        """Append every scheduled event that is due; return when the next one is, or None.

        One whose id was stored meanwhile is dropped, whatever is stored there, and keeps no other back.
        """
        ...


class EventLog(EventSink, Protocol):
    """Append events, and read them in the order of their positions."""

    path: str
    max_payload_bytes: int

    async def read_page(self, after: int, *, limit: int, types: Iterable[str] | None = None) -> Page:
        """Read up to ``limit`` rows above ``after``, fewer where they are large, and how far that reaches.

        Nothing lies above only where ``upto`` is ``after``. Raises CorruptLogError at the first altered row.
        """
        ...

    async def read_positions(self, positions: Sequence[int]) -> list[StoredRecord]:
        """Read the rows at these positions, in order; positions that are gone are left out."""
        ...

    async def head(self) -> int:
        """Return the highest position, 0 for an empty log."""
        ...

    def add_listener(self, listener: Callable[[Committed], None]) -> Callable[[], None]:
        """Call ``listener`` after every commit of this object, in order, before its publishers resume.

        It is called in any thread and must return at once. Returns a function that takes it away.
        """
        ...


class DeadLetterStore(Protocol):
    """Keep deliveries that were given up."""

    async def list_dead_letters(
        self,
        *,
        subscription: str | None = None,
        event_type: str | None = None,
        error_type: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[DeadLetterRecord]:
        """Return dead letters by ascending id above ``after``; ``error_type`` is that of the last attempt."""
        ...

    async def group_dead_letters(self) -> list[DeadLetterGroup]:
        """Count dead letters by subscription and type of the last error, largest group first."""
        ...

    async def get_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Return one. Raises DeadLetterNotFoundError."""
        ...

    async def begin_retry(
        self, dead_letter_id: int, payload: bytes | None, now: float
    ) -> DeadLetterRecord | None:
        """Mark a dead letter as being retried, with a new payload (JSON) if given; None if it is already.

        From then on it is a retry of its subscription, due at ``now`` (seconds since 1970), with
        ``from_dead_letter``; a ``Progress`` that clears it removes the dead letter, one that parks it again
        keeps its id. Raises DeadLetterNotFoundError, DecodeError for a payload that does not fit.
        """
        ...

    async def discard_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Remove a dead letter and return it. Raises DeadLetterNotFoundError."""
        ...


class LogQueries(Protocol):
    """Find events by what is indexed, at a cost that depends on what is returned, not on the log's length."""

    async def find_events(
        self,
        wanted: LogFilter,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[StoredRecord]:
        """Return up to ``limit`` events strictly between two positions, from one end or the other.

        The last one's position is where the next page begins: ``after`` it, or ``before`` it with
        ``newest_first``. Raises UsageError (``aggregate_type`` without id, naive times), CorruptLogError.
        """
        ...

    async def list_event_types(self) -> list[str]:
        """Return the names of all event types in the log, sorted."""
        ...


class SubscriptionStore(DeadLetterStore, Protocol):
    """Keep cursors, exceptions and dead letters beside the log."""

    @property
    def journal(self) -> AttemptJournal | None:
        """Return where attempts are noted, or None where nothing outlives the process anyway."""
        ...

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        """Take a subscription for this storage object; None while it is held, unless in ``epoch``.

        A new name begins at ``start``, which is settled at the call: an append begun later lies behind it. A
        position beyond the head is taken for the head. A known one continues, with a higher epoch, and
        ``start`` is ignored. A new name has epoch 1, also one that was forgotten: so who held it can tell.

        With ``epoch`` its holder takes it anew in one step: nobody can take or forget it in between. It is
        given up where that is cancelled or fails.
        """
        ...

    async def renew_leases(self) -> list[str]:
        """Prolong every lease held here; return the names of those that were lost."""
        ...

    def poll_head(self) -> int | None:
        """Return the log's head if another process has moved it since the last call, else None.

        Never blocks.
        """
        ...

    def listen_to_others(self, heard: Callable[[], object]) -> Callable[[], None]:
        """Call ``heard`` in the running loop when another process says that it wrote; return its remover.

        A hint that ``poll_head`` is worth a call; whether it ever comes is up to the backend.
        """
        ...

    async def release_subscription(self, name: str, epoch: int) -> None:
        """Give a subscription up, so that another process can take it at once."""
        ...

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        """Save everything in one transaction; return the names whose lease is lost.

        Nothing is saved for those.
        """
        ...

    async def parked_positions(self, name: str, after: int, upto: int) -> list[int]:
        """Return the positions in (after, upto] that have a dead letter of this subscription."""
        ...

    async def queued_positions(self, name: str, key: str, limit: int) -> list[int]:
        """Return the first positions that queue behind a parked event of ``key``."""
        ...


class BusLog(EventSink, DeadLetterStore, SubscriptionSteering, Protocol):
    """Be what a bus asks of its log by itself; delivering asks for the rest of ``EventStorage``."""


class EventStorage(EventLog, LogQueries, SubscriptionStore, SubscriptionControl, Protocol):
    """Be everything a durable bus stands on, and the queries that applications use."""

    async def store_event(self, event: Any) -> int:
        """Append one event; return its position. Raises as ``append_events``."""
        ...

    async def store_events(self, events: Iterable[Any]) -> list[int]:
        """Append several events, all or none; return their positions. Raises as ``append_events``."""
        ...

    async def append(
        self, aggregate_type: str, aggregate_id: str, events: Iterable[Any], *, expected_version: int | None
    ) -> list[int]:
        """Append to one stream; with ``expected_version``, raise ConcurrencyError unless it is there."""
        ...

    async def get_event(self, event_id: str) -> Any:
        """Return the event with this id, or None. Raises DecodeError, CorruptLogError."""
        ...

    async def get_events_by_aggregate(
        self, aggregate_id: str, aggregate_type: str | None = None
    ) -> list[Any]:
        """Return an aggregate's events in version order; without a type, those of all types of this id."""
        ...

    def read(
        self, after: int = 0, *, types: Iterable[Any] | None = None, limit: int | None = None
    ) -> AsyncIterator[Envelope]:
        """Iterate over the log above ``after``; of ``types``: classes, without subclasses, or names."""
        ...

    async def get_unprocessed_events(self, limit: int = 100) -> list[Any]:
        """Return events that some durable subscription has not finished; without any, the unmarked ones."""
        ...

    async def mark_event_processed(self, event_id: str, result: str | None = None) -> bool:
        """Note that an application dispatched an event by itself; False if there is no such event."""
        ...

    async def get_event_statistics(self) -> dict[str, Any]:
        """Return totals by type and aggregate type, and the span of positions and times.

        Keys: ``total_events``; ``events_by_type``; ``events_by_aggregate``, by aggregate type (``""`` for
        none), without events of no aggregate; ``first_position``, ``last_position``; ``first_occurred_at``,
        ``last_occurred_at``, the earliest and latest time (aware). The last four are None for an empty log.
        """
        ...

    def open(self) -> None:
        """Open again after ``aclose()``; harmless while open. May block. Raises StorageError."""
        ...

    async def aclose(self) -> None:
        """Finish what was accepted, let go of files and threads; later appends raise StorageClosedError."""
        ...


class AggregateStorage(EventStorage, Protocol):
    """Be an event storage that aggregates live on."""

    def append_streams(self, changes: Sequence[StreamAppend]) -> Awaitable[list[int]]:
        """Append to several streams, all or none; the positions come when they are stored.

        The order of calls is the order of appends, awaited or not, so a later call may expect the versions
        that an earlier one makes. Raises ConcurrencyError with both versions for the first stream that is
        elsewhere, InvalidEventError, DuplicateEventError, StorageError.
        """
        ...

    async def read_history(
        self, aggregate_type: str, aggregate_id: str, after_version: int = 0
    ) -> list[StoredRecord]:
        """Read an aggregate's rows above ``after_version``, in version order. Raises CorruptLogError."""
        ...

    async def load_snapshot(self, aggregate_type: str, aggregate_id: str) -> bytes | None:
        """Return what was saved last for an aggregate, or None."""
        ...

    async def save_snapshot(
        self, aggregate_type: str, aggregate_id: str, version: int, data: bytes | None
    ) -> None:
        """Keep a snapshot in place of the last one; ``None`` removes it."""
        ...
