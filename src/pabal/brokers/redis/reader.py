"""Read a whole log from outside: all partitions, merged by the times at which their events were recorded.

There are no indexes for searching, so events are read from either end and compared, up to a limit. Within a
partition, events keep the order of their positions, even if the server's clock went back.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from pabal.brokers.redis.extent import measure_extents
from pabal.brokers.redis.keys import LogKeys
from pabal.brokers.redis.link import Link
from pabal.brokers.redis.wire import Known, decode_entry
from pabal.domain.counting import counted
from pabal.domain.envelope import StoredRecord
from pabal.errors import BrokerUnavailableError, InvalidFilterError
from pabal.ports.groups import Found, Matches, Place, Placed

MOST_SEARCHED = 100_000
"""Events that one search looks at before it stops; the next search can continue from there."""
_MOST_ENTRIES = 16
_BLOCK_MS = 2000
_PAUSE = 0.1
_END = 2**62
"""A position above all others."""


class _PartitionScan:
    """The rows of one partition between two positions, read from either end."""

    def __init__(self, log: LogReader, partition: int, after: int, upto: int, *, newest_first: bool) -> None:
        self._log = log
        self._newest_first = newest_first
        self._after = after
        self._upto = upto
        self._start = ""
        """The entry id at which the next read from the newest end starts; '' if not determined yet."""
        self._entries = 1
        self.partition = partition
        self.rows: deque[StoredRecord] = deque()

    async def fill(self) -> bool:
        """Read more rows if none are left; tell whether there are any now. Raises CorruptLogError."""
        while not self.rows and self._after < self._upto:
            after, upto = self._after, self._upto
            found = await (self._read_backward() if self._newest_first else self._read_forward())
            # An entry's id is its last position, so the outermost entries may reach beyond the range.
            self.rows.extend(row for row in found if after < row.position <= upto)
        return bool(self.rows)

    async def _read_forward(self) -> list[StoredRecord]:
        entries = await self._log.entries(self.partition, self._after, "+", self._limit())
        if not entries:
            self._after = self._upto
            return []
        self._after = entries[-1][-1].position
        return [row for entry in entries for row in entry]

    async def _read_backward(self) -> list[StoredRecord]:
        start = self._start or await self._log.start_at(self.partition, self._upto)
        entries = await self._log.entries(
            self.partition, self._after, start, self._limit(), newest_first=True
        )
        if not entries:
            self._upto = self._after
            return []
        self._upto = entries[-1][0].position - 1
        self._start = str(self._upto)
        return [row for entry in entries for row in reversed(entry)]

    def _limit(self) -> int:
        """Return how many entries to read: one at first, then more, because most pages need only a few."""
        entries, self._entries = self._entries, min(_MOST_ENTRIES, self._entries * 2)
        return entries


class LogReader:
    """Search and follow a log on an open connection; nothing is written."""

    def __init__(self, link: Link, keys: LogKeys, partitions: int, *, most: int = MOST_SEARCHED) -> None:
        self._link = link
        self._keys = keys
        self._partitions = range(partitions)
        self._most = most

    # -- reading --------------------------------------------------------------------------------------

    async def entries(
        self, partition: int, after: int, upto: str, limit: int, *, newest_first: bool = False
    ) -> list[tuple[StoredRecord, ...]]:
        """Return the rows of up to ``limit`` entries with positions above ``after``, up to id ``upto``."""
        key, low = self._keys.log(partition), f"{after + 1}-0"
        command = ("XREVRANGE", key, upto, low) if newest_first else ("XRANGE", key, low, upto)
        found = await self._link.call(*command, "COUNT", limit)
        return [decode_entry(entry_id, fields, self._link.address).rows for entry_id, fields in found]

    async def start_at(self, partition: int, position: int) -> str:
        """Return the id to start at to read entries downwards from the one that holds a position."""
        if position >= _END:
            return "+"
        found = await self.entries(partition, position - 1, "+", 1)
        if found and found[0][0].position <= position:
            return f"{found[0][-1].position}"
        return f"{position}"

    async def heads(self) -> list[int]:
        """Return the highest position of each partition."""
        calls = [self._link.call("HGET", self._keys.part(part), "head") for part in self._partitions]
        return [int(await call or 0) for call in calls]

    async def find(self, event_id: bytes) -> Placed | None:
        """Return an event by its id; None if the server has forgotten the id or no longer has the event."""
        call = self._link.call
        calls = [
            (part, call("HGET", key, event_id))
            for part in self._partitions
            for key in self._keys.append_keys(part)[2:]
        ]
        for part, known in calls:
            value = await known
            if value is not None:
                position = Known.of(value).position
                for entry in await self.entries(part, position - 1, "+", 1):
                    for row in entry:
                        if row.position == position:
                            return Placed(part, row)
        return None

    # -- searching ------------------------------------------------------------------------------------

    async def search(
        self,
        matches: Matches,
        *,
        before: Place | None = None,
        after: Place | None = None,
        since: int | None = None,
        until: int | None = None,
        upto: Sequence[int] | None = None,
        limit: int,
        oldest_first: bool,
    ) -> Found:
        """Return up to ``limit`` matching events between two places and times, oldest or newest first.

        ``upto`` holds the highest position to look at in each partition.
        """
        low, high = await self._bounds(before, after, since, until, upto)
        scans = [
            _PartitionScan(self, part, low[part], high[part], newest_first=not oldest_first)
            for part in self._partitions
        ]
        filled = await asyncio.gather(*(one.fill() for one in scans))
        sign = 1 if oldest_first else -1
        heap = [_sort_key(one, sign) for one, has_rows in zip(scans, filled, strict=True) if has_rows]
        heapq.heapify(heap)
        found: list[Placed] = []
        looked = 0
        last: Place | None = None
        while heap and len(found) < limit:
            if looked >= self._most:
                return Found(tuple(found), last)
            looked += 1
            part = sign * heap[0][1]
            scan = scans[part]
            row = scan.rows.popleft()
            last = Place(part, row.position)
            if _is_within(row, since, until) and matches(row):
                found.append(Placed(part, row))
            if scan.rows or await scan.fill():
                heapq.heapreplace(heap, _sort_key(scan, sign))
            else:
                heapq.heappop(heap)
        return Found(tuple(found), None)

    async def _bounds(
        self,
        before: Place | None,
        after: Place | None,
        since: int | None,
        until: int | None,
        upto: Sequence[int] | None,
    ) -> tuple[list[int], list[int]]:
        """Return the range to read in each partition: positions above the first value, up to the second."""
        low, high = [0] * len(self._partitions), list(upto or [_END] * len(self._partitions))
        if since is not None:
            low = await self._below(since)
        if until is not None:
            high = _combine(min, high, await self._below(until))
        if after is not None and after.position:
            low = _combine(max, low, await self._positions_before(after))
        if before is not None:
            there = await self._positions_before(before)
            there[before.partition] -= 1
            high = _combine(min, high, there)
        return low, high

    async def _positions_before(self, place: Place) -> list[int]:
        """Return for each partition the highest position that is before a place, or is the place itself."""
        if place.partition not in self._partitions:
            reason = f"the log has {counted(len(self._partitions), 'partition')}"
            raise InvalidFilterError(field="cursor", value=str(place), reason=reason)
        entries = await self.entries(place.partition, place.position - 1, "+", 1)
        if not entries:
            return [_END] * len(self._partitions)
        if entries[0][0].position > place.position:
            reason = "the log no longer goes back that far; begin without a cursor"
            raise InvalidFilterError(field="cursor", value=str(place), reason=reason)
        moment = entries[0][0].recorded_at
        sides = await self._below(moment)
        sides[: place.partition] = (await self._below(moment + 1))[: place.partition]
        sides[place.partition] = place.position
        return sides

    async def _below(self, moment: int) -> list[int]:
        """Return for each partition the highest position recorded before a time (microseconds since 1970)."""
        found = await measure_extents(self._link, self._keys, self._partitions, moment)
        return [_END if one.since is None else one.since for one in found]

    # -- following ------------------------------------------------------------------------------------

    async def follow(self, blocking: Link, places: list[int]) -> AsyncGenerator[Placed, None]:
        """Iterate over new events above ``places``, for ever; while the server is away, wait.

        ``blocking`` is a connection used for this only.
        """
        names = {self._keys.log(part).encode(): part for part in self._partitions}
        while True:
            starts = [f"{place + 1}-0" for place in places]
            try:
                found = await blocking.call(
                    "XREAD", "COUNT", _MOST_ENTRIES, "BLOCK", _BLOCK_MS, "STREAMS", *names, *starts
                )
            except BrokerUnavailableError:
                await asyncio.sleep(_PAUSE)
                continue
            rows: list[Placed] = []
            for name, entries in found or ():
                part = names[name]
                for entry_id, fields in entries:
                    entry = decode_entry(entry_id, fields, blocking.address)
                    rows += [Placed(part, row) for row in entry.rows if row.position > places[part]]
                    places[part] = max(places[part], entry.last)
            for one in sorted(rows, key=lambda one: (one.row.recorded_at, one.partition, one.row.position)):
                yield one


def _sort_key(scan: _PartitionScan, sign: int) -> tuple[int, int, int]:
    row = scan.rows[0]
    return sign * row.recorded_at, sign * scan.partition, sign * row.position


def _is_within(row: StoredRecord, since: int | None, until: int | None) -> bool:
    return (since is None or row.recorded_at >= since) and (until is None or row.recorded_at < until)


def _combine(choose: Callable[[int, int], int], one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [choose(*pair) for pair in zip(one, other, strict=True)]
