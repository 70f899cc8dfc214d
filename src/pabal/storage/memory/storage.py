"""``InMemoryEventStorage``: the event log in Python lists."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Self

from pabal.delivery.turns import decode_all
from pabal.domain.envelope import (
    Envelope,
    EventRecord,
    StoredRecord,
    checksum_at,
    decode_event,
    encode_event,
    from_microseconds,
    to_envelope,
)
from pabal.domain.event import DomainEvent, adopt, body_of
from pabal.domain.registry import registry
from pabal.errors import (
    ConcurrencyError,
    DuplicateEventError,
    StorageClosedError,
)
from pabal.ports.arguments import check_bounds, check_filter, check_stream, check_types
from pabal.ports.inspection import ActionRecord
from pabal.ports.samples import Sample
from pabal.ports.storage import AttemptJournal, Capabilities, Committed, LogFilter, Page, StreamAppend
from pabal.storage.memory.inspection import MemoryInspection
from pabal.storage.memory.samples import KEPT, MemorySamples
from pabal.storage.memory.schedule import MemorySchedule
from pabal.storage.memory.subscribing import MemorySubscriptionCalls

_log = logging.getLogger("pabal")


class InMemoryEventStorage(MemorySubscriptionCalls, MemoryInspection, MemorySamples, MemorySchedule):
    """Keep in memory what ``SqliteEventStorage`` keeps in a file; all is lost with the object.

    Events are encoded and decoded in the same way, so an event that can be stored here can be stored there.
    One bus may stop and another start on the same object, as after a restart. There is no ``transact``,
    ``query``, ``backup``, ``check``, ``trim``, ``vacuum`` or ``rebuild``, and so no projections. After
    ``close()``, appends raise StorageClosedError but reading still works; ``open()`` allows appends again.

    >>> import asyncio
    >>> from pabal import DomainEvent
    >>> class BellRung(DomainEvent):
    ...     tower: str
    >>> async def main():
    ...     async with InMemoryEventStorage() as storage:
    ...         await storage.store_event(BellRung("north"))
    ...         return [(one.position, one.event.tower) async for one in storage.read()]
    >>> asyncio.run(main())
    [(1, 'north')]
    """

    capabilities = Capabilities(persistent=False, shared=False, aggregates=True, inspectable=True)
    journal: AttemptJournal | None = None
    path = ":memory:"

    def __init__(self, *, max_payload_bytes: int = 1 << 20) -> None:
        self.max_payload_bytes = max_payload_bytes
        super().__init__()
        self._by_id: dict[bytes, int] = {}
        self._snapshots: dict[tuple[str, str], bytes] = {}
        self._streams: dict[str, dict[str, list[int]]] = {}
        """The positions of each stream, by aggregate id and type ('' where the event class has none)."""
        self._processed: dict[int, str | None] = {}
        self._first_unprocessed = 1
        self._listeners: list[Callable[[Committed], None]] = []
        self._actions: list[ActionRecord] = []
        self._samples: deque[tuple[Sample, int, int]] = deque(maxlen=KEPT)
        self._closed = False

    # -- appending ------------------------------------------------------------------------------------

    async def store_event(self, event: Any) -> int:
        """Append one event and return its position. Raises InvalidEventError, DuplicateEventError."""
        return self._append([adopt(event)])[0]

    async def store_events(self, events: Iterable[Any]) -> list[int]:
        """Append events in order, all or none; return their positions. Raises what ``store_event`` does."""
        return self._append([adopt(event) for event in events])

    async def append_events(self, events: Sequence[DomainEvent]) -> list[int]:
        """Append adopted events, all or none; return their positions. Raises what ``store_event`` does."""
        return self._append(events)

    async def append(
        self,
        aggregate_type: str,
        aggregate_id: str,
        events: Iterable[Any],
        *,
        expected_version: int | None,
    ) -> list[int]:
        """Append to one aggregate's stream and return the positions.

        ``expected_version`` is the version the stream must have; None accepts any. Raises ConcurrencyError
        if it differs, InvalidEventError for an event of another aggregate, DuplicateEventError.
        """
        adopted = [adopt(event) for event in events]
        check_stream(adopted, aggregate_type, aggregate_id)
        if expected_version is None:
            return self._append(adopted)
        return self._append(adopted, [((aggregate_type, aggregate_id), expected_version)])

    def append_streams(self, changes: Sequence[StreamAppend]) -> asyncio.Future[list[int]]:
        """Append to several streams, all or none; await the positions. Raises what ``append`` does."""
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        try:
            events = [event for change in changes for event in change.events]
            expected = [((c.aggregate_type, c.aggregate_id), c.expected_version) for c in changes]
            done.set_result(self._append(events, expected))
        except Exception as error:
            done.set_exception(error)
        return done

    def _append(
        self,
        events: Sequence[DomainEvent],
        expected: Sequence[tuple[tuple[str, str], int]] = (),
    ) -> list[int]:
        if self._closed:
            raise StorageClosedError(path=self.path, reason="closed")
        records = [encode_event(event, self.max_payload_bytes) for event in events]
        first = len(self._rows) + 1
        positions: list[int] = []
        fresh: dict[bytes, tuple[int, DomainEvent, EventRecord]] = {}
        for event, record in zip(events, records, strict=True):
            known = self._by_id.get(record.event_id)
            twin: Any = self._rows[known - 1] if known else None
            if twin is None and record.event_id in fresh:
                known, _, twin = fresh[record.event_id]
            if twin is None:
                known = first + len(fresh)
                fresh[record.event_id] = (known, event, record)
            elif (twin.event_type, twin.aggregate_id, twin.payload) != (
                record.event_type,
                record.aggregate_id,
                record.payload,
            ):
                raise DuplicateEventError(event_id=event.event_id, position=known)
            assert known is not None
            positions.append(known)
        for stream, expected_version in expected if fresh else ():
            actual = len(self._positions_of(*stream))
            if actual != expected_version:
                raise ConcurrencyError(
                    aggregate_type=stream[0],
                    aggregate_id=stream[1],
                    expected_version=expected_version,
                    actual_version=actual,
                )
        self._insert(list(fresh.values()))
        return positions

    def _insert(self, fresh: list[tuple[int, DomainEvent, EventRecord]]) -> None:
        if not fresh:
            return
        now = max(time.time_ns() // 1000, self._rows[-1].recorded_at if self._rows else 0)
        for position, _, record in fresh:
            version = None
            if record.aggregate_id is not None:
                streams = self._streams.setdefault(record.aggregate_id, {})
                stream = streams.setdefault(record.aggregate_type or "", [])
                stream.append(position)
                version = len(stream)
            checksum = checksum_at(record.checksum, position, version, now)
            self._rows.append(StoredRecord(position, *record[:10], checksum, version, now))
            self._by_id[record.event_id] = position
        batch = Committed(fresh[0][0], tuple(event for _, event, _ in fresh))
        for listener in tuple(self._listeners):
            self._call(listener, batch)

    def _positions_of(self, aggregate_type: str | None, aggregate_id: str) -> list[int]:
        return self._streams.get(aggregate_id, {}).get(aggregate_type or "", [])

    def add_listener(self, listener: Callable[[Committed], None]) -> Callable[[], None]:
        """Call ``listener`` after each append; return a function that removes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # -- reading --------------------------------------------------------------------------------------

    async def head(self) -> int:
        """Return the highest position, 0 for an empty log."""
        return len(self._rows)

    async def get_event(self, event_id: str) -> Any:
        """Return the event with this id, or None. Raises DecodeError."""
        row = await self.find_record(event_id)
        return None if row is None else body_of(decode_event(row))

    async def get_events_by_aggregate(
        self, aggregate_id: str, aggregate_type: str | None = None
    ) -> list[Any]:
        """Return an aggregate's events in version order; without a type, of all aggregates with this id."""
        positions = sorted(
            position
            for kind, entries in self._streams.get(aggregate_id, {}).items()
            if aggregate_type in (None, kind)
            for position in entries
        )
        return await decode_all([self._rows[position - 1] for position in positions])

    async def read_history(
        self, aggregate_type: str, aggregate_id: str, after_version: int = 0
    ) -> list[StoredRecord]:
        """Read an aggregate's rows above ``after_version``, in version order."""
        check_bounds(after_version=after_version)
        positions = self._positions_of(aggregate_type, aggregate_id)[max(0, after_version) :]
        return [self._rows[position - 1] for position in positions]

    async def load_snapshot(self, aggregate_type: str, aggregate_id: str) -> bytes | None:
        """Return the last snapshot saved for an aggregate, or None."""
        return self._snapshots.get((aggregate_type, aggregate_id))

    async def save_snapshot(
        self, aggregate_type: str, aggregate_id: str, version: int, data: bytes | None
    ) -> None:
        """Save an aggregate's snapshot in place of the previous one; ``data=None`` deletes it."""
        if data is None:
            self._snapshots.pop((aggregate_type, aggregate_id), None)
        else:
            self._snapshots[aggregate_type, aggregate_id] = data

    async def read(
        self, after: int = 0, *, types: Iterable[Any] | None = None, limit: int | None = None
    ) -> AsyncIterator[Envelope]:
        """Iterate over envelopes above ``after``; ``types`` are classes (without subclasses) or names."""
        check_types(types)
        names = None
        if types is not None:
            names = {kind if isinstance(kind, str) else registry.schema_of(kind).event_type for kind in types}
        left = len(self._rows) if limit is None else limit
        check_bounds(left, after=after)
        after = max(0, after)
        while after < len(self._rows) and left > 0:
            row = self._rows[after]
            after += 1
            if names is None or row.event_type in names:
                left -= 1
                yield to_envelope(row)

    async def read_page(self, after: int, *, limit: int, types: Iterable[str] | None = None) -> Page:
        """Read up to ``limit`` rows above ``after``, not decoded."""
        check_bounds(limit, after=after)
        names = None if types is None else set(types)
        left = (self._rows[index] for index in range(max(0, after), len(self._rows)))
        rows = tuple(islice((row for row in left if names is None or row.event_type in names), limit))
        last = rows[-1].position if rows else after
        return Page(rows, last if len(rows) == limit else max(after, len(self._rows)))

    async def read_positions(self, positions: Sequence[int]) -> list[StoredRecord]:
        """Read the rows at these positions, in order; positions missing from the log are left out."""
        return [self._rows[p - 1] for p in sorted(set(positions)) if 0 < p <= len(self._rows)]

    async def find_events(
        self,
        wanted: LogFilter,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[StoredRecord]:
        """Return up to ``limit`` matching rows, strictly between two positions, oldest or newest first."""
        check_filter(wanted)
        check_bounds(limit, after=after, before=before or 0)
        indexes = range(len(self._rows))[max(0, after) : None if before is None else max(0, before - 1)]
        rows = (self._rows[index] for index in (reversed(indexes) if newest_first else indexes))
        return list(islice((row for row in rows if wanted.admits(row)), limit))

    async def list_event_types(self) -> list[str]:
        """Return the names of all event types in the log, sorted."""
        return sorted({row.event_type for row in self._rows})

    async def get_unprocessed_events(self, limit: int = 100) -> list[Any]:
        """Return events that at least one durable subscription has not finished, in order of position.

        If there is no durable subscription, return the events not marked with ``mark_event_processed``.
        """
        check_bounds(limit)
        unfinished = self._subscriptions.unfinished_positions()
        if unfinished is not None:
            return await decode_all(await self.read_positions(sorted(unfinished)[:limit]))
        while self._first_unprocessed in self._processed:
            self._first_unprocessed += 1
        left = range(self._first_unprocessed, len(self._rows) + 1)
        positions = islice((position for position in left if position not in self._processed), limit)
        return await decode_all(await self.read_positions(list(positions)))

    async def mark_event_processed(self, event_id: str, result: str | None = None) -> bool:
        """Mark an event as dispatched by the application itself; False if there is no such event."""
        row = await self.find_record(event_id)
        if row is not None:
            self._processed[row.position] = result
        return row is not None

    async def get_event_statistics(self) -> dict[str, Any]:
        """Return event counts and ranges, with the keys of ``SqliteEventStorage.get_event_statistics``."""
        by_type: dict[str, int] = {}
        by_aggregate: dict[str, int] = {}
        for row in self._rows:
            by_type[row.event_type] = by_type.get(row.event_type, 0) + 1
            if row.aggregate_id is not None:
                kind = row.aggregate_type or ""
                by_aggregate[kind] = by_aggregate.get(kind, 0) + 1
        times = [row.occurred_at for row in self._rows]
        return {
            "total_events": len(self._rows),
            "events_by_type": dict(sorted(by_type.items())),
            "events_by_aggregate": dict(sorted(by_aggregate.items())),
            "first_position": 1 if self._rows else None,
            "last_position": len(self._rows) or None,
            "first_occurred_at": from_microseconds(min(times)) if times else None,
            "last_occurred_at": from_microseconds(max(times)) if times else None,
        }

    # -- life -----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Allow appends again after ``close()``; everything stored is still there."""
        self._closed = False

    def close(self) -> None:
        """Refuse further appends, until ``open`` is called; reading still works. Harmless when closed."""
        self._closed = True

    async def aclose(self) -> None:
        """Close as ``close`` does."""
        self.close()

    def __enter__(self) -> Self:
        """Return the storage itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return the storage itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
