"""Read a whole log from outside: all partitions, merged by the times at which their events were recorded.

There are no indexes for searching, so events are read from either end and compared, up to a limit. Within a
partition, events keep the order of their positions, even if the server's clock went back.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from pabal.brokers.redis.extent import measure_extents
from pabal.brokers.redis.keys import LogKeys
from pabal.brokers.redis.link import Link
from pabal.brokers.redis.wire import Entry, Known, decode_entry, id_field
from pabal.domain.counting import counted
from pabal.domain.envelope import StoredRecord
from pabal.errors import BrokerUnavailableError, CorruptLogError, InvalidFilterError
from pabal.ports.groups import Found, Matches, OnDamage, Place, Placed

RawEntry = tuple[bytes, Sequence[bytes]]
"""An entry's id, and its fields and values."""
MOST_SEARCHED = 100_000
"""Events that one search looks at before it stops; the next search can continue from there."""
_MOST_ENTRIES = 16
_BLOCK_MS = 2000
_PAUSE = 0.1
_END = 2**62
"""A position above all others."""


class _PartitionScan:
    """The rows of one partition between two positions, read from either end."""

    def __init__(
        self,
        log: LogReader,
        partition: int,
        after: int,
        upto: int,
        *,
        newest_first: bool,
        on_damage: OnDamage | None,
    ) -> None:
        self._log = log
        self._newest_first = newest_first
        self._on_damage = on_damage
        self._after = after
        self._upto = upto
        self._start = ""
        """The entry id at which the next read from the newest end starts; '' if not determined yet."""
        self._entries = 1
        self.partition = partition
        self.rows: deque[StoredRecord] = deque()

    async def fill(self) -> bool:
        """Read more rows if none are left; tell whether there are any now.

        At a damaged entry it raises CorruptLogError, or calls ``on_damage`` for each position of it.
        """
        while not self.rows and self._after < self._upto:
            after, upto = self._after, self._upto
            found = await (self._read_backward() if self._newest_first else self._read_forward())
            # An entry's id is its last position, so the outermost entries may reach beyond the range.
            self.rows.extend(row for row in found if after < row.position <= upto)
        return bool(self.rows)

    async def _read_forward(self) -> list[StoredRecord]:
        entries = self._decode(await self._log.raw_entries(self.partition, self._after, "+", self._limit()))
        if not entries:
            self._after = self._upto
            return []
        self._after = entries[-1].last
        return [row for entry in entries for row in entry.rows]

    async def _read_backward(self) -> list[StoredRecord]:
        start = self._start or await self._log.start_at(self.partition, self._upto)
        entries = self._decode(
            await self._log.raw_entries(self.partition, self._after, start, self._limit(), newest_first=True)
        )
        if not entries:
            self._upto = self._after
            return []
        self._upto = entries[-1].first - 1
        self._start = str(self._upto)
        return [row for entry in entries for row in reversed(entry.rows)]

    def _decode(self, raw: Sequence[RawEntry]) -> list[Entry]:
        """Decode entries up to a damaged one; pass over it if it is the first, or raise CorruptLogError."""
        entries: list[Entry] = []
        for one in raw:
            try:
                entries.append(self._log.decode(self.partition, one))
            except CorruptLogError as error:
                if not entries:
                    entries.append(self._pass_over(one, error))
                break
        return entries

    def _pass_over(self, damaged: RawEntry, error: CorruptLogError) -> Entry:
        if self._on_damage is None:
            raise error
        last, count = map(int, damaged[0].split(b"-"))
        first = last - count + 1
        for position in range(max(first, self._after + 1), min(last, self._upto) + 1):
            self._on_damage(CorruptLogError(path=error.path, position=position, reason=error.reason))
        return Entry(first, last, ())

    def _limit(self) -> int:
        """Return how many entries to read: one at first, then more, because most pages need only a few."""
        entries, self._entries = self._entries, min(_MOST_ENTRIES, self._entries * 2)
        return entries


class LogReader:
    """Read, search and follow a log on an open connection; nothing is written."""

    def __init__(self, link: Link, keys: LogKeys, partitions: int, *, most: int = MOST_SEARCHED) -> None:
        self._link = link
        self._keys = keys
        self._partitions = range(partitions)
        self._most = most

    # -- entries --------------------------------------------------------------------------------------

    async def raw_entries(
        self, partition: int, after: int, upto: str, limit: int, *, newest_first: bool = False
    ) -> Sequence[RawEntry]:
        """Return up to ``limit`` entries that hold positions above ``after``, up to the id ``upto``."""
        key, low = self._keys.log(partition), f"{after + 1}-0"
        command = ("XREVRANGE", key, upto, low) if newest_first else ("XRANGE", key, low, upto)
        found: Sequence[RawEntry] = await self._link.call(*command, "COUNT", limit)
        return found

    def decode(self, partition: int, entry: RawEntry) -> Entry:
        """Decode an entry. Raises CorruptLogError, which names the partition's key, too."""
        return decode_entry(*entry, f"{self._link.address} {self._keys.log(partition)}")

    async def _entry_at(self, partition: int, position: int) -> Entry | None:
        """Return the entry that holds a position, or the next one; None if there is neither."""
        found = await self.raw_entries(partition, position - 1, "+", 1)
        return self.decode(partition, found[0]) if found else None

    async def start_at(self, partition: int, position: int) -> str:
        """Return the id to start at to read entries downwards from the one that holds a position."""
        if position >= _END:
            return "+"
        for entry_id, _ in await self.raw_entries(partition, position - 1, "+", 1):
            last, count = map(int, entry_id.split(b"-"))
            if last - count < position:
                return f"{last}"
        return f"{position}"

    async def heads(self) -> list[int]:
        """Return the highest position of each partition."""
        calls = [self._link.call("HGET", self._keys.part(part), "head") for part in self._partitions]
        return [int(await call or 0) for call in calls]

    async def find(self, event_id: bytes) -> Placed | None:
        """Return an event by its id; None if the server has forgotten the id or no longer has the event."""
        call = self._link.call
        calls = [
            (part, call("HGET", key, id_field(event_id)))
            for part in self._partitions
            for key in self._keys.append_keys(part)[2:]
        ]
        for part, answer in calls:
            known = Known.find(event_id, await answer)
            entry = await self._entry_at(part, known.position) if known is not None else None
            for row in entry.rows if entry is not None else ():
                if known is not None and row.position == known.position:
                    return Placed(part, row)
        return None

    # -- reading and searching ------------------------------------------------------------------------

    async def read(
        self,
        matches: Matches,
        *,
        after: Place | None,
        since: int | None,
        until: int | None = None,
        upto: Sequence[int],
        on_damage: OnDamage | None = None,
    ) -> AsyncGenerator[Placed, None]:
        """Iterate over matching events after a place and between two times, oldest first.

        ``upto`` holds the highest position to look at in each partition. At a damaged entry it raises
        CorruptLogError, or calls ``on_damage`` for each position of it and passes over it.
        """
        low, high = await self._bounds(None, after, since, until, upto)
        async with aclosing(self._merge(low, high, newest_first=False, on_damage=on_damage)) as rows:
            async for one in rows:
                if _is_within(one.row, since, until) and matches(one.row):
                    yield one

    async def search(
        self,
        matches: Matches,
        *,
        before: Place | None = None,
        after: Place | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int,
        oldest_first: bool,
    ) -> Found:
        """Return up to ``limit`` matching events between two places and times, oldest or newest first."""
        low, high = await self._bounds(before, after, since, until)
        found: list[Placed] = []
        looked = 0
        last: Place | None = None
        async with aclosing(self._merge(low, high, newest_first=not oldest_first)) as rows:
            async for one in rows:
                if looked >= self._most:
                    return Found(tuple(found), last)
                looked += 1
                last = Place(one.partition, one.row.position)
                if _is_within(one.row, since, until) and matches(one.row):
                    found.append(one)
                    if len(found) >= limit:
                        break
        return Found(tuple(found), None)

    async def _merge(
        self,
        low: Sequence[int],
        high: Sequence[int],
        *,
        newest_first: bool,
        on_damage: OnDamage | None = None,
    ) -> AsyncGenerator[Placed, None]:
        """Iterate over the rows of a range of each partition, by the times at which they were recorded."""
        scans = [
            _PartitionScan(self, part, low[part], high[part], newest_first=newest_first, on_damage=on_damage)
            for part in self._partitions
        ]
        filled = await asyncio.gather(*(one.fill() for one in scans))
        sign = -1 if newest_first else 1
        heap = [_sort_key(one, sign) for one, has_rows in zip(scans, filled, strict=True) if has_rows]
        heapq.heapify(heap)
        while heap:
            part = sign * heap[0][1]
            scan = scans[part]
            yield Placed(part, scan.rows.popleft())
            if scan.rows or await scan.fill():
                heapq.heapreplace(heap, _sort_key(scan, sign))
            else:
                heapq.heappop(heap)

    async def _bounds(
        self,
        before: Place | None,
        after: Place | None,
        since: int | None,
        until: int | None,
        upto: Sequence[int] | None = None,
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
        entry = await self._entry_at(place.partition, place.position)
        if entry is None:
            return [_END] * len(self._partitions)
        if entry.first > place.position:
            reason = "the log no longer goes back that far; begin without a cursor"
            raise InvalidFilterError(field="cursor", value=str(place), reason=reason)
        moment = entry.rows[0].recorded_at
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
                    entry = self.decode(part, (entry_id, fields))
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
