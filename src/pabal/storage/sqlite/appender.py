"""Assign positions and stream versions to appended events, and insert them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import NamedTuple

from pabal.domain.envelope import EventRecord, StoredRecord, checksum_at, id_to_text, verify
from pabal.domain.event import DomainEvent
from pabal.errors import ConcurrencyError, DuplicateEventError
from pabal.ports.storage import Committed
from pabal.storage.sqlite.own_tables import OwnTables
from pabal.storage.sqlite.places import read_number
from pabal.storage.sqlite.schema import CHECKPOINT_PAGES
from pabal.storage.sqlite.statements import COLUMNS, INSERT_SIZES, insert_events, statements

Stream = tuple[str, str]
"""Aggregate id and type ('' where the event class has none)."""

_INDEX_EVERY = 20_000
"""Rows in the log but not yet in the indexes (the "tail") that are worth one run of index building."""
_INDEX_AT_MOST = 3
"""Factor by which the tail may exceed ``_INDEX_EVERY`` while its rows belong to very many streams."""
_SHARING = 6
"""Tail rows per stream to wait for: SQLite rewrites a whole index page for one new entry as for six."""
_MAX_CACHED_HEADS = 200_000


class Expected(NamedTuple):
    """The version that a stream must have for an append to succeed."""

    aggregate_type: str | None
    aggregate_id: str
    version: int


class Appender:
    """Track the head of the log and the versions of streams; used by the writer thread only.

    Maintaining the index from (stream, version) to position costs more than the rest of an insert, because
    its keys are scattered. So it is built after the commits, in sorted order, about ``_INDEX_EVERY`` rows at
    a time. Until then ``tail`` holds in memory what the index lacks.
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._sql = statements()
        self.own_tables = OwnTables(connection)
        self.max_payload_bytes = 1 << 20
        self.tail: dict[Stream, list[tuple[int, int]]] = {}
        """(version, position) of the committed events that are not indexed yet, by stream."""
        self.known = 0
        """The highest position that this object has accounted for."""
        self.indexed_upto = 0
        """The highest position in the index of streams."""
        self._index_above = 0
        self._head = 0
        self._recorded = 0
        """When the newest event was recorded. Never decreases, so positions can be found by time."""
        self._heads: dict[Stream, int] = {}
        self._savepoint_rows: list[tuple[Stream, int, int]] = []
        self._transaction_rows: list[tuple[Stream, int, int]] = []
        self._savepoint_head = 0
        self._data_version: int | None = None
        self._checkpoint_pages = CHECKPOINT_PAGES
        self._durability = "full"
        self._durability_written = self._durability_committed = False
        """Whether the file records our durability: written in this transaction, and committed."""

    # -- life of a transaction ------------------------------------------------------------------------

    def open(self) -> None:
        """Load from the file how far the index goes and which rows it lacks."""
        synced = self._connection.execute("PRAGMA synchronous").fetchone()[0] >= 2
        self._durability = "full" if synced else "normal"
        self._catch_up()

    def begin(self) -> None:
        """Load what other processes wrote since the last transaction; call it at the start of each."""
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version:
            self._data_version = version
            self._catch_up()
        self._head = self._savepoint_head = self.known
        self.checkpoint_from(CHECKPOINT_PAGES)

    def checkpoint_from(self, pages: int) -> None:
        """Set at how many pages in the write-ahead log this transaction's commit checkpoints it."""
        if pages != self._checkpoint_pages:
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
            self._checkpoint_pages = pages

    def _catch_up(self) -> None:
        one = self._connection.execute
        indexed = read_number(self._connection, self._path, "indexed_upto")
        head = one(self._sql["head"]).fetchone()[0]
        if indexed != self.indexed_upto or head != self.known:
            self._heads.clear()
            self.note_indexed(indexed)
            rows = one(self._sql["unindexed"], (max(indexed, self.known),))
            for aggregate_id, aggregate_type, version, position in rows:
                self.tail.setdefault((aggregate_id, aggregate_type), []).append((version, position))
            self.known = head
            row = one(self._sql["last_recorded"]).fetchone()
            self._recorded = max(self._recorded, row[0] if row else 0)

    def note_savepoint_release(self) -> None:
        """Keep the rows inserted since the last part ended: their savepoint is released."""
        self._transaction_rows += self._savepoint_rows
        self._savepoint_rows = []
        self._savepoint_head = self._head

    def note_savepoint_rollback(self) -> None:
        """Forget the rows inserted since the last part ended: their savepoint is rolled back."""
        undone = {stream for stream, _, _ in self._savepoint_rows}
        for stream in undone:
            self._heads.pop(stream, None)
        for stream, version, _ in self._transaction_rows:
            if stream in undone:
                self._heads[stream] = version
        self._savepoint_rows = []
        self._head = self._savepoint_head
        self._durability_written = False

    def note_commit(self) -> None:
        """Add the rows of the committed transaction to the tail."""
        for stream, version, position in self._transaction_rows:
            self.tail.setdefault(stream, []).append((version, position))
        self._transaction_rows = []
        self.known = self._head
        self._durability_committed = self._durability_committed or self._durability_written

    def note_rollback(self) -> None:
        """Forget everything since ``begin``: the transaction is rolled back."""
        self._transaction_rows = []
        self._savepoint_rows = []
        self._heads.clear()
        self._data_version = None
        self._durability_written = False

    # -- appending ------------------------------------------------------------------------------------

    def insert(self, records: Sequence[EventRecord]) -> int:
        """Insert records; return the first one's position. Raises sqlite3.IntegrityError for a stored id."""
        if not (self._durability_committed or self._durability_written):
            self._connection.execute(self._sql["note_durability"], (self._durability,))
            self._durability_written = True
        now = self._recorded = max(self._recorded, time.time_ns() // 1000)
        first = position = self._head + 1
        heads, savepoint_rows = self._heads, self._savepoint_rows
        values: list[object] = []
        for record in records:
            version = None
            aggregate_id = record[4]
            if aggregate_id is not None:
                stream = (aggregate_id, record[3] or "")
                version = heads[stream] = (heads.get(stream) or self._version(stream)) + 1
                savepoint_rows.append((stream, version, position))
            checksum = checksum_at(record[10], position, version, now)
            values += (position, *record[:10], checksum, version, now)
            position += 1
        self._insert_values(values)
        self._head = position - 1
        return first

    def _insert_values(self, values: list[object]) -> None:
        start = 0
        for rows in INSERT_SIZES:
            size = rows * COLUMNS
            while len(values) - start >= size:
                self._connection.execute(insert_events(rows), values[start : start + size])
                start += size

    def append(
        self, events: Sequence[DomainEvent], records: Sequence[EventRecord], expected: Sequence[Expected] = ()
    ) -> tuple[list[int], list[Committed]]:
        """Append one caller's events, of which some may be stored already; return positions and new events.

        Raises DuplicateEventError, ConcurrencyError, or CorruptLogError if the stored copy of one is damaged.
        """
        positions: list[int] = []
        fresh: dict[bytes, int] = {}
        new_events: list[DomainEvent] = []
        new_records: list[EventRecord] = []
        first = self._head + 1
        for event, record in zip(events, records, strict=True):
            stored = self._stored(record.event_id)
            if stored is None and record.event_id in fresh:
                twin = new_records[fresh[record.event_id] - first]
                self._same_or_raise(record, twin, fresh[record.event_id])
                positions.append(fresh[record.event_id])
            elif stored is None:
                fresh[record.event_id] = first + len(new_records)
                positions.append(first + len(new_records))
                new_events.append(event)
                new_records.append(record)
            else:
                self._same_or_raise(record, stored, stored.position)
                positions.append(stored.position)
        if not new_records:
            return positions, []
        for stream in expected:
            self._check(stream)
        self.insert(new_records)
        return positions, [Committed(first, tuple(new_events))]

    def _check(self, expected: Expected) -> None:
        actual = self._version((expected.aggregate_id, expected.aggregate_type or ""))
        if actual != expected.version:
            raise ConcurrencyError(
                aggregate_type=expected.aggregate_type,
                aggregate_id=expected.aggregate_id,
                expected_version=expected.version,
                actual_version=actual,
            )

    def _stored(self, event_id: bytes) -> StoredRecord | None:
        columns = self._connection.execute(self._sql["stored_event"], (event_id,)).fetchone()
        if columns is None:
            return None
        row = StoredRecord._make(columns)
        verify(row, self._path)
        return row

    def _same_or_raise(self, record: EventRecord, known: EventRecord | StoredRecord, position: int) -> None:
        same = (record.event_type, record.aggregate_id, record.payload) == (
            known.event_type,
            known.aggregate_id,
            known.payload,
        )
        if not same:
            raise DuplicateEventError(event_id=id_to_text(record.event_id), position=position)

    def _version(self, stream: Stream) -> int:
        version = self._heads.get(stream)
        if version is None:
            tail = self.tail.get(stream)
            if tail:
                version = tail[-1][0]
            else:
                row = self._connection.execute(self._sql["stream_version"], stream).fetchone()
                version = row[0] or 0
            if len(self._heads) >= _MAX_CACHED_HEADS:
                self._heads.clear()
                # Keep what this transaction added: neither the tail nor the index has it yet.
                for added, number, _ in (*self._transaction_rows, *self._savepoint_rows):
                    self._heads[added] = number
            self._heads[stream] = self._heads.get(stream, version)
            version = self._heads[stream]
        return version

    # -- building the indexes -------------------------------------------------------------------------

    def index_is_due(self, *, final: bool) -> bool:
        """Return whether to extend the index now; ``final``, before the thread ends, takes all the rest."""
        behind = self.known - max(self.indexed_upto, self._index_above)
        if final or behind < _INDEX_EVERY:
            return final and behind > 0
        return behind >= min(_SHARING * len(self.tail), _INDEX_AT_MOST * _INDEX_EVERY)

    def index_streams(self) -> int:
        """Add all rows of the tail to the indexes, sorted; return the last position. In a transaction."""
        upto = self.known
        for statement in ("index_streams", "index_types", "index_correlations"):
            self._connection.execute(self._sql[statement], (self.indexed_upto, upto))
        self._connection.execute(self._sql["set_indexed_upto"], (upto,))
        return upto

    def note_index_failure(self) -> None:
        """Wait for another ``_INDEX_EVERY`` events before the next attempt."""
        self._index_above = self.known

    def note_indexed(self, upto: int) -> None:
        """Remove the rows that are now in the index from the tail."""
        self.indexed_upto = upto
        gone: list[Stream] = []
        for stream, entries in self.tail.items():
            kept = [entry for entry in entries if entry[1] > upto]
            if kept:
                self.tail[stream] = kept
            else:
                gone.append(stream)
        for stream in gone:
            del self.tail[stream]
