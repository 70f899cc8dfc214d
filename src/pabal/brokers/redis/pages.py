"""Read one partition, from entries the tail has just received or from the server; notice lost events."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence

from pabal.brokers.redis.cursors import as_pairs
from pabal.brokers.redis.extent import Extent, extent_of
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.wire import Entry, decode_entry
from pabal.domain.envelope import StoredRecord
from pabal.ports.storage import Page

_ENTRIES = 16
"""Entries to read from the server at a time."""
_CACHED_ROWS = 8192
_CACHED_BYTES = 16 << 20
"""Limits for received entries waiting for readers; entries beyond either are read from the server later."""
_ASKED_AT_ONCE = 256
"""The most entries to request by position at a time."""
_KEPT_ENTRIES = 2
_KEPT_ROWS, _KEPT_BYTES = 16, 4 << 20
"""The least rows and the most bytes of an entry that is kept after it was requested for one of its rows."""
_REMEMBERED = 20_000
"""The least number of event ids that a reader remembers, in order to skip events that were appended twice."""

Lost = Callable[[int, int], None]


class _CachedEntry:
    """An entry, decoded only when its rows are read: decoding many at once would block the event loop."""

    __slots__ = ("_fields", "_id", "first", "last", "rows", "size")

    def __init__(self, entry_id: bytes, fields: list[bytes]) -> None:
        last, count = entry_id.split(b"-")
        self.last = int(last)
        self.first = self.last - int(count) + 1
        self.size = sum(map(len, fields))
        self.rows: tuple[StoredRecord, ...] | None = None
        self._id = entry_id
        self._fields = fields

    def decode(self, path: str) -> tuple[StoredRecord, ...]:
        """Return the entry's rows. Raises CorruptLogError."""
        return decode_entry(self._id, self._fields, path).rows


class Pages:
    """Serve the rows of a partition in order, mostly from memory.

    ``_cached`` holds consecutive entries: those read last, and those received since, as long as the readers
    keep up. ``follows`` means that the next entry received continues it, without a gap.
    """

    def __init__(self, log: RedisLog, partition: int, on_lost: Lost) -> None:
        self._log = log
        self._partition = partition
        self._on_lost = on_lost
        self._cached: list[_CachedEntry] = []
        self._rows = self._bytes = 0
        self._kept: deque[Entry] = deque(maxlen=_KEPT_ENTRIES)
        """The large entries that were requested last: those who ask for single rows ask for more of them."""
        self._recent: dict[bytes, int] = {}
        self._older: dict[bytes, int] = {}
        self.follows = False
        self.end = 0
        """The highest position read or received."""
        self.extent = Extent(0, 0, None, ())
        """The partition's head, floor and gaps, as last read from the server."""
        self.on_head: Callable[[int], None] = _ignore
        """Called with the partition's head whenever it was read from the server."""
        self.on_follow: Callable[[], None] = _nothing
        """Called when ``follows`` becomes true: from now on, received entries are to be offered."""

    def offer(self, entries: Sequence[tuple[bytes, list[bytes]]]) -> int:
        """Add entries just received, if they continue the run; return its last position."""
        for entry_id, fields in entries:
            last = int(entry_id.split(b"-")[0])
            if not self.follows or last <= self.end:
                continue
            if self._rows > _CACHED_ROWS or self._bytes > _CACHED_BYTES:
                self.follows = False  # readers are too far behind; they read these from the server later
                break
            entry = _CachedEntry(entry_id, fields)
            if entry.first != self.end + 1:
                self.follows = False
                break
            self._append(entry)
        return self.end

    async def follow(self) -> int:
        """Start following at the head, and return it; earlier entries are read from the server on demand."""
        self.end = await self.measure()
        self._drop(len(self._cached))
        self._start_following()
        return self.end

    async def measure(self) -> int:
        """Read the partition's extent from the server; return its head."""
        facts = await self._log.link.call("HGETALL", self._log.keys.part(self._partition))
        self.extent = extent_of(as_pairs(facts))
        return self.extent.head

    def _start_following(self) -> None:
        if not self.follows:
            self.follows = True
            self.on_follow()

    def _append(self, entry: _CachedEntry) -> None:
        self._cached.append(entry)
        self._rows += entry.last - entry.first + 1
        self._bytes += entry.size
        self.end = entry.last

    def _drop(self, count: int) -> None:
        for done in self._cached[:count]:
            self._rows -= done.last - done.first + 1
            self._bytes -= done.size
        del self._cached[:count]

    def _rows_of(self, entry: _CachedEntry) -> tuple[StoredRecord, ...]:
        if entry.rows is None:
            entry.rows = self._drop_duplicates(entry.decode(self._log.path))
        return entry.rows

    def _drop_duplicates(self, rows: tuple[StoredRecord, ...]) -> tuple[StoredRecord, ...]:
        """Drop rows of events that were appended before, and remember the ids of the others."""
        places = {row.event_id: row.position for row in reversed(rows)}
        new = self._recent.keys().isdisjoint(places) and self._older.keys().isdisjoint(places)
        if not new or len(places) < len(rows):
            for event_id in places:
                known = self._recent.get(event_id) or self._older.get(event_id)
                if known is not None:
                    places[event_id] = min(known, places[event_id])
            rows = tuple([row for row in rows if places[row.event_id] == row.position])
        self._recent.update(places)
        if len(self._recent) > _REMEMBERED:
            self._recent, self._older = {}, self._recent
        return rows

    async def page(self, after: int, limit: int) -> Page:
        """Return up to ``limit`` rows above ``after``; if empty, there are none yet, or a gap was skipped."""
        index = self._index_of(after + 1)
        if index is None:
            missing = await self._fetch(after)
            if missing:
                return Page((), missing)
            index = self._index_of(after + 1)
            if index is None:
                return Page((), after)
        rows: list[StoredRecord] = []
        upto = after
        for entry in self._cached[index:]:
            if len(rows) >= limit:
                break
            wanted: Sequence[StoredRecord] = self._rows_of(entry)
            if entry.first <= after:
                wanted = [row for row in wanted if row.position > after]
            room = limit - len(rows)
            rows += wanted[:room]
            if len(wanted) > room:
                upto = rows[-1].position
                break
            upto = entry.last
        self._drop(index)
        return Page(tuple(rows), upto)

    def _index_of(self, position: int) -> int | None:
        for index, entry in enumerate(self._cached):
            if entry.first <= position <= entry.last:
                return index
        return None

    async def _fetch(self, after: int) -> int:
        """Read entries above ``after`` from the server; return the end of a hole that begins there, or 0."""
        call = self._log.link.call
        about = call("HGETALL", self._log.keys.part(self._partition))
        found = call("XRANGE", self._log.keys.log(self._partition), f"{after + 1}-0", "+", "COUNT", _ENTRIES)
        facts, raw = as_pairs(await about), await found
        entries = [_CachedEntry(entry_id, fields) for entry_id, fields in raw]
        self.extent = extent_of(facts)
        head = self.extent.head
        begin = entries[0].first if entries else head + 1
        self._drop(len(self._cached))
        self.end = max(after, head) if not entries else after
        self.on_head(head)  # also if it is beyond a hole: otherwise the engine would not read past the hole
        if begin > after + 1:
            self._report_hole(after + 1, begin - 1)
            self.follows = False
            if not entries:
                self._start_following()  # the hole ends at the head, so there is nothing more to read
            return begin - 1
        for entry in entries:
            if entry.first > max(self.end + 1, entries[0].first):
                break  # another hole, to be handled when the reader reaches it
            self._append(entry)
        else:
            if self.end >= head:
                self._start_following()
        return 0

    def _report_hole(self, first: int, last: int) -> None:
        """Report positions of a hole as lost, except trimmed ones and those that were never assigned."""
        first = max(first, self.extent.floor + 1)
        for begin, end in self.extent.gaps:
            if begin > last:
                break
            if begin > first:
                self._on_lost(first, begin - 1)
            first = max(first, end + 1)
        if first <= last:
            self._on_lost(first, last)

    async def at(self, positions: Sequence[int]) -> list[StoredRecord]:
        """Return the rows at given positions; report those that are gone as lost."""
        rows = await self.find(positions)
        for position in sorted(set(positions) - {row.position for row in rows}):
            if 0 < position <= self.end:
                self._on_lost(position, position)
        return rows

    async def find(self, positions: Sequence[int]) -> list[StoredRecord]:
        """Return the rows at given positions; leave out those that are gone."""
        left = sorted({position for position in positions if position > 0})
        rows: dict[int, StoredRecord] = {}
        spread = _ENTRIES
        while left:
            # An entry holds many rows and is sent whole, so only a few positions, far apart, are requested.
            asked = left[:: -(-len(left) // spread)]
            for entry in await self._entries_at(asked):
                between = left[bisect_left(left, entry.first) : bisect_right(left, entry.last)]
                rows.update((position, entry.rows[position - entry.first]) for position in between)
            gone = rows.keys() | set(asked)
            before, left = len(left), [position for position in left if position not in gone]
            if before - len(left) < 2 * len(asked):
                spread = min(_ASKED_AT_ONCE, 4 * spread)  # hardly any of them share an entry
        return [rows[position] for position in sorted(rows)]

    async def _entries_at(self, positions: Sequence[int]) -> list[Entry]:
        """Return the entries that hold the positions, or that follow a missing one, without repeats."""
        key = self._log.keys.log(self._partition)
        kept = [entry for entry in self._kept if any(entry.first <= one <= entry.last for one in positions)]
        calls = [
            self._log.link.call("XRANGE", key, f"{position}-0", "+", "COUNT", 1)
            for position in positions
            if not any(entry.first <= position <= entry.last for entry in kept)
        ]
        found = {entry_id: fields for one in calls for entry_id, fields in await one}
        for entry_id, fields in found.items():
            entry = decode_entry(entry_id, fields, self._log.path)
            kept.append(entry)
            if len(entry.rows) >= _KEPT_ROWS and sum(map(len, fields)) <= _KEPT_BYTES:
                self._kept.append(entry)
        return kept


def _ignore(head: int) -> None:
    """Ignore the head: no listener is set."""


def _nothing() -> None:
    """Do nothing: no listener is set."""
