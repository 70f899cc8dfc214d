"""What the bus needs from a log, as protocols and the values that pass through them.

An implementation promises, for everything below:

- *ordered*: positions start at 1 and grow in commit order, and a reader never sees a lower position after a
  higher one;
- *durable*: a call that changes something returns only when the change is as safe as the durability that the
  backend declares;
- *atomic*: a call becomes visible as a whole or not at all;
- *cancel-safe*: cancelling a caller that waits leaves the change done or not done, never half done;
- *errors*: only StorageError, its subclasses and the errors named below are raised.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from pabal.domain.envelope import Envelope, StoredRecord
from pabal.domain.event import DomainEvent
from pabal.ports.control import SubscriptionAdmin, SubscriptionControl
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
    """Record which deliveries are being attempted, so that a handler that kills its process is counted.

    ``begin`` and ``end`` cost well under a microsecond. The record survives the death of the process, but not
    of the machine.
    """

    def begin(self, slot: int, subscription: int, first: int, last: int, attempt: int) -> None:
        """Record that ``slot`` starts an attempt at positions ``first`` … ``last``."""

    def reserve(self, slots: int) -> int:
        """Make room for ``slots`` more slots and return the number of the first."""
        ...

    def end(self, slot: int) -> None:
        """Record that the slot's attempt is over."""


class EventSink(Protocol):
    """Take events in, at once or when they are due."""

    capabilities: Capabilities

    def append_events(self, events: Sequence[DomainEvent]) -> Awaitable[list[int]]:
        """Append events in order, all or none; the result is their positions, once they are stored.

        An event that is already stored with the same content is not appended again and keeps its position.
        Raises InvalidEventError, DuplicateEventError, StorageError.
        """
        ...

    async def schedule_event(self, event: DomainEvent, due_at: float) -> None:
        """Store an event that enters the log at ``due_at`` (seconds since 1970).

        One that is already scheduled or stored is left as it is. Raises InvalidEventError;
        DuplicateEventError if its id has other content; UsageError for a time that is not finite;
        StorageError.
        """
        ...

    async def release_due(self, now: float) -> float | None:
        """Append every scheduled event that is due; return when the next one is due, or None.

        An event whose id was stored in the meantime is dropped, whatever is stored under it, and delays no
        other.
        """
        ...


class EventLog(EventSink, Protocol):
    """Append events, and read them in the order of their positions."""

    path: str
    max_payload_bytes: int

    async def read_page(self, after: int, *, limit: int, types: Iterable[str] | None = None) -> Page:
        """Read up to ``limit`` rows above ``after``, fewer if they are large; ``upto`` is how far they reach.

        Only if ``upto`` equals ``after`` is there nothing above. Raises CorruptLogError at the first altered
        row.
        """
        ...

    async def read_positions(self, positions: Sequence[int]) -> list[StoredRecord]:
        """Read the rows at these positions, in order; positions that no longer exist are left out."""
        ...

    async def head(self) -> int:
        """Return the highest position, 0 for an empty log."""
        ...

    def add_listener(self, listener: Callable[[Committed], None]) -> Callable[[], None]:
        """Call ``listener`` after every commit of this object, in order, before its publishers resume.

        It may be called in any thread and must return at once. Returns a function that removes it.
        """
        ...


class DeadLetterStore(Protocol):
    """Keep the deliveries that were given up."""

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
        """Count dead letters by subscription and type of the last error, the largest group first."""
        ...

    async def get_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Return a dead letter. Raises DeadLetterNotFoundError."""
        ...

    async def begin_retry(
        self, dead_letter_id: int, payload: bytes | None, now: float
    ) -> DeadLetterRecord | None:
        """Mark a dead letter as being retried, with a new payload (JSON) if given; None if it already is.

        From then on it is a retry of its subscription with ``from_dead_letter``, due at ``now`` (seconds
        since 1970). A ``Progress`` that clears it removes the dead letter; one that parks it again keeps its
        id. Raises DeadLetterNotFoundError, and DecodeError for a payload that does not fit.
        """
        ...

    async def discard_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Remove a dead letter and return it. Raises DeadLetterNotFoundError."""
        ...


class LogQueries(Protocol):
    """Find events through indexes, at a cost that depends on the result and not on the length of the log."""

    async def find_events(
        self,
        wanted: LogFilter,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[StoredRecord]:
        """Return up to ``limit`` events strictly between two positions, beginning at one of them.

        The next page begins at the position of the last one: pass it as ``after``, or as ``before`` with
        ``newest_first``. Raises UsageError (``aggregate_type`` without id, naive times), CorruptLogError.
        """
        ...

    async def list_event_types(self) -> list[str]:
        """Return the names of all event types in the log, sorted."""
        ...


class SubscriptionStore(DeadLetterStore, Protocol):
    """Keep cursors, retries, queues and dead letters beside the log."""

    async def count_dead_letters(self) -> int:
        """Return how many dead letters there are, those of forgotten subscriptions included."""
        ...

    @property
    def journal(self) -> AttemptJournal | None:
        """Return the journal of attempts; None if nothing outlives the process anyway."""
        ...

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        """Open a subscription for this storage object; None while it is held, unless in ``epoch``.

        A new name begins at ``start``, which is fixed at the call: events appended later come after it. A
        position beyond the head counts as the head. A known name continues at its cursor with a higher epoch,
        and ``start`` is ignored. A new name has epoch 1, also one that was forgotten, so that its former
        holder can tell.

        With ``epoch``, the holder opens it again in one step, so that no other can open or forget it in
        between. If this is cancelled or fails, the subscription is released.
        """
        ...

    async def renew_leases(self) -> list[str]:
        """Renew every lease held here; return the names of those that were lost."""
        ...

    def poll_head(self) -> int | None:
        """Return the head of the log if another process has moved it since the last call, else None.

        Never blocks.
        """
        ...

    def listen_to_others(self, heard: Callable[[], object]) -> Callable[[], None]:
        """Call ``heard`` in the running loop when another process announces a write; return its remover.

        It is a hint to call ``poll_head``. A backend may never announce anything.
        """
        ...

    async def release_subscription(self, name: str, epoch: int) -> None:
        """Release a subscription, so that another process can open it at once."""
        ...

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        """Save all changes in one transaction; return the names whose lease is lost.

        Nothing is saved for these.
        """
        ...

    async def parked_positions(self, name: str, after: int, upto: int) -> list[int]:
        """Return the positions in (after, upto] of its dead letters, and of what queues behind them."""
        ...

    async def queued_positions(self, name: str, key: str, limit: int) -> list[int]:
        """Return the first positions queued behind a parked event of ``key``."""
        ...


class BusLog(EventSink, DeadLetterStore, SubscriptionAdmin, Protocol):
    """What a bus itself needs from its log; delivery needs the rest of ``EventStorage``."""


class EventStorage(EventLog, LogQueries, SubscriptionStore, SubscriptionControl, Protocol):
    """Everything a durable bus needs, and the queries that applications use."""

    async def store_event(self, event: Any) -> int:
        """Append one event; return its position. Raises as ``append_events``."""
        ...

    async def store_events(self, events: Iterable[Any]) -> list[int]:
        """Append several events, all or none; return their positions. Raises as ``append_events``."""
        ...

    async def append(
        self, aggregate_type: str, aggregate_id: str, events: Iterable[Any], *, expected_version: int | None
    ) -> list[int]:
        """Append to one stream. Raises ConcurrencyError if it is not at ``expected_version``, if given."""
        ...

    async def get_event(self, event_id: str) -> Any:
        """Return the event with this id, or None. Raises DecodeError, CorruptLogError."""
        ...

    async def get_events_by_aggregate(
        self, aggregate_id: str, aggregate_type: str | None = None
    ) -> list[Any]:
        """Return an aggregate's events in version order; without a type, those of all types with this id."""
        ...

    def read(
        self, after: int = 0, *, types: Iterable[Any] | None = None, limit: int | None = None
    ) -> AsyncIterator[Envelope]:
        """Iterate over the log above ``after``; ``types`` are classes, without their subclasses, or names."""
        ...

    async def get_unprocessed_events(self, limit: int = 100) -> list[Any]:
        """Return events that a durable subscription has not finished; if there is none, the unmarked ones."""
        ...

    async def mark_event_processed(self, event_id: str, result: str | None = None) -> bool:
        """Record that the application has dispatched an event itself; False if the event does not exist."""
        ...

    async def get_event_statistics(self) -> dict[str, Any]:
        """Return totals by type and aggregate type, and the first and last position and time.

        Keys: ``total_events``; ``events_by_type``; ``events_by_aggregate``, by aggregate type (``""`` for
        none), without events that have no aggregate; ``first_position``, ``last_position``;
        ``first_occurred_at``, ``last_occurred_at``, the earliest and latest time (aware). The last four are
        None for an empty log.
        """
        ...

    def open(self) -> None:
        """Open again after ``aclose()``; harmless if open. May block. Raises StorageError."""
        ...

    async def aclose(self) -> None:
        """Finish accepted calls, and close files and threads; later appends raise StorageClosedError."""
        ...


class AggregateStorage(EventStorage, Protocol):
    """An event storage that can keep aggregates."""

    def append_streams(self, changes: Sequence[StreamAppend]) -> Awaitable[list[int]]:
        """Append to several streams, all or none; the result is the positions, once they are stored.

        Appends happen in the order of the calls, awaited or not, so a call may expect versions that an
        earlier call makes. Raises ConcurrencyError, with both versions, for the first stream that is at
        another version; InvalidEventError, DuplicateEventError, StorageError.
        """
        ...

    async def read_history(
        self, aggregate_type: str, aggregate_id: str, after_version: int = 0
    ) -> list[StoredRecord]:
        """Read an aggregate's rows above ``after_version``, in version order. Raises CorruptLogError."""
        ...

    async def load_snapshot(self, aggregate_type: str, aggregate_id: str) -> bytes | None:
        """Return the last snapshot saved for an aggregate, or None."""
        ...

    async def save_snapshot(
        self, aggregate_type: str, aggregate_id: str, version: int, data: bytes | None
    ) -> None:
        """Replace an aggregate's snapshot; ``None`` removes it."""
        ...
