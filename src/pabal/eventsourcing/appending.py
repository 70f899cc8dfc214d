"""Store the events that aggregates recorded. One append stores and publishes them."""

from __future__ import annotations

from typing import Any

from pabal.delivery.context import current_event, with_cause
from pabal.domain.aggregate import Aggregate
from pabal.errors import ConcurrencyError, CorruptLogError, UsageError
from pabal.ports.storage import AggregateStorage, StreamAppend


def storage_of(bus_or_storage: Any) -> AggregateStorage:
    """Return the storage that holds the aggregates. Raises UsageError for a bus without one."""
    storage = getattr(bus_or_storage, "storage", bus_or_storage)
    if not hasattr(storage, "append_streams"):
        raise UsageError(
            f"{bus_or_storage!r:.80} has no log for aggregates; give the bus an event_storage "
            "such as SqliteEventStorage, or pass the storage itself. A bus on Redis has none: feed "
            "it from a storage with relay(storage, bus)"
        )
    return storage  # type: ignore[no-any-return]


class Change:
    """Hold the events that one aggregate recorded until they are appended to the log."""

    __slots__ = ("aggregate", "request")

    def __init__(self, aggregate: Aggregate) -> None:
        self.aggregate = aggregate
        current = current_event.get()
        expected = aggregate.stored_version
        events = aggregate.take_pending()
        if current is not None:
            events = [with_cause(event, current) for event in events]
        self.request = StreamAppend(aggregate.aggregate_type, aggregate.id, expected, tuple(events))

    @property
    def last_event_id(self) -> str:
        """Return the id of the newest event."""
        return self.request.events[-1].event_id


def merge(changes: list[Change]) -> list[StreamAppend]:
    """Merge consecutive changes of one aggregate into one request."""
    first = changes[0].request
    if len(changes) == 1:
        return [first]
    events = tuple(event for change in changes for event in change.request.events)
    return [StreamAppend(first.aggregate_type, first.aggregate_id, first.expected_version, events)]


async def refuse_trimmed(storage: AggregateStorage, conflict: ConcurrencyError) -> None:
    """Raise CorruptLogError if the conflict is with an aggregate whose whole history was trimmed.

    Such an aggregate always loads as a new one, so loading it again would never resolve the conflict.
    """
    kind, identity = str(conflict.aggregate_type), conflict.aggregate_id
    if conflict.expected_version:
        return
    # Its last event is enough: the history before it may be long.
    if not await storage.read_history(kind, identity, conflict.actual_version - 1):
        raise CorruptLogError(
            path=storage.path,
            position=None,
            reason=f"all {conflict.actual_version} events of {kind}/{identity} were trimmed, so it can "
            "be neither loaded nor created again",
        ) from conflict
