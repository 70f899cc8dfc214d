"""Events of the in-memory storage that enter its log later."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pabal.domain.envelope import StoredRecord, encode_event
from pabal.domain.event import DomainEvent, copy_if_mutable
from pabal.errors import DuplicateEventError, StorageClosedError
from pabal.ports.arguments import check_time

_log = logging.getLogger("pabal")


class MemorySchedule:
    """Keep scheduled events until they are due; a part of ``InMemoryEventStorage``, which owns the rows."""

    if TYPE_CHECKING:
        path: str
        max_payload_bytes: int
        _closed: bool
        _rows: list[StoredRecord]
        _by_id: dict[bytes, int]

        def _append(self, events: Sequence[DomainEvent]) -> list[int]: ...

    def __init__(self) -> None:
        super().__init__()
        self._scheduled: list[tuple[float, bytes, DomainEvent]] = []
        self._scheduled_by_id: dict[bytes, DomainEvent] = {}

    async def schedule_event(self, event: DomainEvent, due_at: float) -> None:
        """Store an event that enters the log at ``due_at`` (seconds since 1970)."""
        check_time(due_at)
        if self._closed:
            raise StorageClosedError(path=self.path, reason="closed")
        record = encode_event(event, self.max_payload_bytes)
        known = self._by_id.get(record.event_id)
        twin = self._rows[known - 1] if known else None
        if other := self._scheduled_by_id.get(record.event_id):
            twin = StoredRecord(0, *encode_event(other, self.max_payload_bytes), None, 0)
        if twin is None:
            self._scheduled_by_id[record.event_id] = private = copy_if_mutable(event)
            heapq.heappush(self._scheduled, (due_at, record.event_id, private))
        elif (twin.event_type, twin.payload) != (record.event_type, record.payload):
            raise DuplicateEventError(event_id=event.event_id, position=twin.position)

    async def release_due(self, now: float) -> float | None:
        """Append all scheduled events that are due; return when the next one is due, or None."""
        while self._scheduled and self._scheduled[0][0] <= now:
            _, event_id, event = self._scheduled[0]
            try:
                self._append([event])
            except DuplicateEventError as error:
                _log.error("a scheduled event is dropped: another one was published with its id: %s", error)
            heapq.heappop(self._scheduled)
            del self._scheduled_by_id[event_id]
        return self._scheduled[0][0] if self._scheduled else None
