"""The log of one partition: append, read, and answer applications' queries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from pabal.brokers.redis import queries
from pabal.brokers.redis.cursors import as_pairs, decode_cursor
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.pages import Lost, Pages
from pabal.domain.envelope import Envelope, StoredRecord, decode_event, id_to_bytes
from pabal.domain.event import DomainEvent, adopt, body_of
from pabal.errors import InvalidEventError, StorageClosedError, UsageError
from pabal.ports.arguments import check_bounds
from pabal.ports.storage import Committed, Page

_PAGE = 256
"""The most rows in a page: they are decoded in the event loop, which must not be blocked for long."""


class PartitionLog:
    """Append to one partition of a log, and read it."""

    def __init__(
        self, log: RedisLog, keys: GroupKeys, partition: int, *, on_lost: Lost | None = None
    ) -> None:
        self.log = log
        self.partition = partition
        self.path = log.path
        self.max_payload_bytes = log.max_payload_bytes
        self._group_keys = keys
        self._keys = keys.of(partition)
        self.pages = Pages(log, partition, on_lost or _ignore)
        self._listeners: list[Callable[[Committed], None]] = []
        self._closed = False

    async def store_event(self, event: Any) -> int:
        """Append one event and return its position."""
        return (await self._append([adopt(event)]))[0]

    async def store_events(self, events: Iterable[Any]) -> list[int]:
        """Append several events, all or none, and return their positions."""
        return await self._append([adopt(event) for event in events])

    async def append_events(self, events: Sequence[DomainEvent]) -> list[int]:
        """Append events in order, all or none; return their positions."""
        return await self._append(events)

    async def append(
        self, aggregate_type: str, aggregate_id: str, events: Iterable[Any], *, expected_version: int | None
    ) -> list[int]:
        """Raise UsageError: only an event store, not a broker, tracks the versions of aggregates."""
        raise UsageError(
            "a log on Redis keeps no versions of aggregates; keep them in a local storage "
            "and feed the bus with relay(storage, bus)"
        )

    async def _append(self, events: Sequence[DomainEvent]) -> list[int]:
        if self._closed:
            raise StorageClosedError(path=self.path, reason="closed")
        return await self.log.append(events, self.partition)

    def appended(self, first: int, events: tuple[DomainEvent, ...]) -> None:
        """Tell the listeners about events that this process appended to the partition."""
        for listener in tuple(self._listeners):
            listener(Committed(first, events))

    def add_listener(self, listener: Callable[[Committed], None]) -> Callable[[], None]:
        """Call ``listener`` with the events that this process appends; return a function that removes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def read_page(self, after: int, *, limit: int, types: Iterable[str] | None = None) -> Page:
        """Read up to ``limit`` rows (at most 256) above ``after``. Raises CorruptLogError."""
        page = await self.pages.page(after, min(limit, _PAGE))
        if types is None:
            return page
        names = set(types)
        return Page(tuple(row for row in page.rows if row.event_type in names), page.upto)

    async def read_positions(self, positions: Sequence[int]) -> list[StoredRecord]:
        """Read the rows at these positions, in order; those gone from the server are left out."""
        return await self.pages.at(positions)

    async def head(self) -> int:
        """Return the highest position of the partition."""
        return (await self.log.heads([self.partition]))[0]

    def poll_head(self) -> int | None:
        """Return None: the tail tells of new events, so there is nothing to poll."""
        return None

    def listen_to_others(self, heard: Callable[[], object]) -> Callable[[], None]:
        """Do nothing: the tail tells of new events, so ``heard`` is never called."""
        return lambda: None

    def read(
        self, after: int = 0, *, types: Iterable[Any] | None = None, limit: int | None = None
    ) -> AsyncIterator[Envelope]:
        """Iterate over envelopes above position ``after``."""
        return queries.read(self._reader(), after, types, limit)

    def _reader(self) -> PartitionLog:
        """Return a separate reader, so that queries do not disturb the pages that the engine reads."""
        return PartitionLog(self.log, self._group_keys, self.partition)

    async def get_event(self, event_id: str) -> Any:
        """Return the event with this id, or None; reads the whole partition."""
        try:
            return await queries.by_id(self._reader(), id_to_bytes(event_id))
        except InvalidEventError:
            return None

    async def get_events_by_aggregate(
        self, aggregate_id: str, aggregate_type: str | None = None
    ) -> list[Any]:
        """Return an aggregate's events in publish order; reads the whole partition."""
        return await queries.by_aggregate(self._reader(), aggregate_id, aggregate_type)

    async def get_event_statistics(self) -> dict[str, Any]:
        """Return event counts and the range of positions and times; reads the whole partition."""
        return await queries.statistics(self._reader())

    async def get_unprocessed_events(self, limit: int = 100) -> list[Any]:
        """Return events that some subscription of the group has not finished, in order of position.

        If the group has no subscription, return the events not marked with ``mark_event_processed``.
        """
        check_bounds(limit)
        saved = as_pairs(await self.log.link.call("HGETALL", self._keys.cursors))
        extra = [await self.log.link.call("HKEYS", key) for key in (self._keys.retries, self._keys.queued)]
        left = {int(at.rpartition(b"\0")[2]) for fields in extra for at in fields}
        lowest = None
        for data in saved.values():
            cursor = decode_cursor(data)
            left.update(cursor.positions())
            lowest = cursor.frontier if lowest is None else min(lowest, cursor.frontier)
        done = await self.log.link.call("SMEMBERS", self._processed) if not saved else ()
        events: list[Any] = []
        async for row in queries.rows_of(self._reader()):
            unfinished = row.position in left or (lowest is not None and row.position > lowest)
            if unfinished or (not saved and row.event_id not in done):
                if len(events) == limit:
                    break
                events.append(body_of(decode_event(row)))
        return events

    @property
    def _processed(self) -> str:
        return self._group_keys.base + "processed"

    async def mark_event_processed(self, event_id: str, result: str | None = None) -> bool:
        """Mark an event as dispatched by the application itself; False if there is no such event."""
        if await self.get_event(event_id) is None:
            return False
        await self.log.link.call("SADD", self._processed, id_to_bytes(event_id))
        return True


def _ignore(first: int, last: int) -> None:
    """Ignore lost events."""
