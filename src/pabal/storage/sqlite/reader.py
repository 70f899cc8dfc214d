"""Read concurrently with the writer, through separate connections in separate threads.

No read transaction outlives a call, so readers do not keep the write-ahead log from being emptied for long.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from traceback import clear_frames
from typing import Any, TypeVar

import msgspec

from pabal.domain.envelope import StoredRecord, id_to_bytes, verify
from pabal.errors import CorruptLogError, InvalidEventError, StorageClosedError, UsageError
from pabal.ports.arguments import check_bounds
from pabal.ports.sql import only_reads
from pabal.ports.storage import Page
from pabal.storage.sqlite import forks
from pabal.storage.sqlite.appender import Appender
from pabal.storage.sqlite.connection import Connection
from pabal.storage.sqlite.cursors import unpack_positions
from pabal.storage.sqlite.faults import UNDECODABLE, is_corruption, readable, storable, translated
from pabal.storage.sqlite.places import check_gap, read_number
from pabal.storage.sqlite.schema import connect_reader, decode_text
from pabal.storage.sqlite.statements import statements
from pabal.storage.sqlite.unprocessed import UnprocessedCache

T = TypeVar("T")
_THREADS = 2
PAGE_BYTES = 16 << 20
"""Bytes of payload after which a page ends, however few rows it has: a thousand rows may be a gigabyte."""
STEPS = 10_000
"""SQLite instructions between two checks of ``cancelled``; they take about a tenth of a millisecond."""


class Reader:
    """Run queries in a few threads, each with its own connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._executor = ThreadPoolExecutor(_THREADS, "pabal-reader")
        self._long_executor = ThreadPoolExecutor(1, "pabal-long-reader")
        """Runs what takes as long as the file is large, one after another, so that pages need not wait."""
        self._is_inherited = False
        self._unprocessed = UnprocessedCache()

    def forked(self) -> None:
        """Refuse queries in a forked child: the connections and threads belong to its parent."""
        self._is_inherited = True

    async def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``query(connection)`` in a reader thread and return its result."""
        return await self._run_in(self._executor, query)

    async def _run_in(self, executor: ThreadPoolExecutor, query: Callable[[sqlite3.Connection], T]) -> T:
        if self._is_inherited:
            raise forks.refusal(str(self._path))
        loop = asyncio.get_running_loop()
        try:
            future = loop.run_in_executor(executor, self._run, query)
        except RuntimeError as error:  # the executor has been shut down
            raise StorageClosedError(path=str(self._path), reason="closed") from error
        return await future

    async def unprocessed(self, limit: int) -> list[StoredRecord]:
        """Return events that some subscription has not finished, or, without subscriptions, unmarked ones."""
        return await self.run(lambda c: read_unprocessed(c, str(self._path), limit, self._unprocessed))

    async def run_long(self, query: Callable[[sqlite3.Connection, threading.Event], T]) -> T:
        """Run ``query(connection, cancelled)``, and interrupt it if this call is cancelled.

        After that its statements fail, and ``cancelled`` is set; whatever else it does must check that.
        """
        cancelled = threading.Event()

        def interruptible(connection: sqlite3.Connection) -> T:
            connection.set_progress_handler(cancelled.is_set, STEPS)
            try:
                return query(connection, cancelled)
            finally:
                connection.set_progress_handler(None, 0)

        try:
            return await self._run_in(self._long_executor, interruptible)
        finally:
            cancelled.set()

    def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = connect_reader(self._path)
            self._connections.append(connection)
        with translated(str(self._path)):
            try:
                with readable(str(self._path)), storable():
                    return _run_query(query, connection)
            except sqlite3.OperationalError as error:
                if not str(error).startswith(UNDECODABLE):
                    raise
            # Some text is not UTF-8. Read it as it is, so that a checksum reveals which row is damaged.
            connection.text_factory = decode_text
            try:
                with readable(str(self._path)):
                    return _run_query(query, connection)
            finally:
                connection.text_factory = str

    def close(self) -> None:
        """Wait for running queries, then close all connections."""
        self._executor.shutdown(wait=True)
        self._long_executor.shutdown(wait=True)
        for connection in self._connections:
            connection.close()
        self._connections.clear()


def _run_query(query: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    """Run a query; if it fails, end its statements.

    A statement that was not read to its end keeps its snapshot for as long as the error refers to its cursor:
    all later reads of the connection would see the log as it was then.
    """
    try:
        return query(connection)
    except BaseException as error:
        failed: BaseException | None = error
        while failed is not None:
            clear_frames(failed.__traceback__)
            failed = failed.__context__
        raise


def read_rows(connection: sqlite3.Connection, sql: str, parameters: Any) -> list[Any]:
    """Return the rows of an application's SELECT. Raises UsageError if the statement cannot be run."""
    if not only_reads(sql):
        # A PRAGMA could let the next call write, and BEGIN would keep this connection on an old snapshot.
        raise _no_select(sql)
    try:
        return connection.execute(sql, parameters).fetchall()
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_READONLY:
            raise _no_select(sql) from error
        if isinstance(error, sqlite3.ProgrammingError) or code == sqlite3.SQLITE_ERROR:
            raise UsageError(f"query({sql!r:.200}) cannot be run: {error}") from error
        raise


def _no_select(sql: str) -> UsageError:
    return UsageError(f"query({sql!r:.200}) cannot be run; it takes one SELECT; use transact() to write")


def read_page(
    connection: sqlite3.Connection,
    path: str,
    after: int,
    limit: int,
    types: Iterable[str] | None,
    most_bytes: int | None = None,
) -> Page:
    """Return a page of verified rows; it ends before a damaged row. Raises CorruptLogError if that is first.

    The page also ends with the row at which its payloads reach ``most_bytes``, 16 MiB by default.
    """
    left = PAGE_BYTES if most_bytes is None else most_bytes
    check_bounds(limit, after=after)
    sql = statements()
    head: int = connection.execute(sql["head"]).fetchone()[0]
    if types is None:
        cursor = connection.execute(sql["page"], (after, limit))
    else:
        names = msgspec.json.encode(sorted(types)).decode()
        cursor = connection.execute(sql["page_of_types"], (after, names, limit))
    rows: list[StoredRecord] = []
    expected = after + 1
    try:
        for columns in cursor:
            row = StoredRecord._make(columns)
            verify(row, path)
            if types is None and row.position != expected:
                check_gap(connection, path, expected, row.position)
            expected = row.position + 1
            rows.append(row)
            left -= len(row.payload)
            if left <= 0:
                return Page(tuple(rows), row.position)
    except (CorruptLogError, sqlite3.DatabaseError) as error:
        # End this page before the damage; the next page begins with it and raises.
        if not rows:
            raise
        if isinstance(error, sqlite3.DatabaseError) and not is_corruption(error):
            raise
        return Page(tuple(rows), rows[-1].position)
    last = rows[-1].position if rows else after
    return Page(tuple(rows), last if len(rows) == limit else max(head, last))


def read_positions(connection: sqlite3.Connection, path: str, positions: Sequence[int]) -> list[StoredRecord]:
    """Return the verified rows at these positions, in order; missing ones are left out."""
    wanted = msgspec.json.encode(list(positions)).decode()
    rows = [StoredRecord._make(row) for row in connection.execute(statements()["at_positions"], (wanted,))]
    for row in rows:
        verify(row, path)
    return rows


def read_event(connection: Connection, path: str, event_id: str) -> StoredRecord | None:
    """Return the verified row of an event id; None if there is none or the text is not a UUID."""
    try:
        raw = id_to_bytes(event_id)
    except InvalidEventError:
        return None
    row = connection.execute(statements()["stored_event"], (raw,)).fetchone()
    if row is None:
        return None
    record = StoredRecord._make(row)
    verify(record, path)
    return record


def read_stream(
    connection: sqlite3.Connection,
    path: str,
    appender: Appender,
    aggregate_id: str,
    aggregate_type: str | None,
    after_version: int = 0,
) -> list[StoredRecord]:
    """Return an aggregate's rows above ``after_version``, in version order.

    They come from the index, from the appender's tail (rows not indexed yet) and from rows that other
    processes have appended. ``after_version`` requires an aggregate type.
    """
    check_bounds(after_version=after_version)
    sql = statements()
    # Read the tail before the index: rows that leave the tail in between are in the index by then.
    known = appender.known
    tail = [
        position
        for (stream_id, stream_type), entries in _tail_of(appender, aggregate_id, aggregate_type)
        for version, position in entries
        if version > after_version
    ]
    connection.execute("BEGIN")
    try:
        if aggregate_type is None:
            found = connection.execute(sql["stream_positions_any_type"], (aggregate_id,))
        else:
            found = connection.execute(sql["stream_positions"], (aggregate_id, aggregate_type, after_version))
        positions = {position for (position,) in found}
        positions.update(tail)
        indexed = read_number(connection, path, "indexed_upto")
        others = connection.execute(sql["stream_tail"], (max(known, indexed), aggregate_id))
        positions.update(p for p, kind in others if aggregate_type is None or kind == aggregate_type)
        rows = read_positions(connection, path, sorted(positions))
        if after_version:
            rows = [row for row in rows if (row.stream_version or 0) > after_version]
            positions = {row.position for row in rows}
        first = connection.execute(sql["first"]).fetchone()[0] or 0
    finally:
        connection.execute("COMMIT")
    gone = positions - {row.position for row in rows}
    if gone and max(gone) >= first:
        # A trim deletes from the start of the log, so rows missing after its first event are damage.
        raise CorruptLogError(path=path, position=max(gone), reason=f"missing from stream {aggregate_id}")
    _check_stream(rows, path, aggregate_id, whole=first <= 1 and not after_version)
    return rows


def _check_stream(rows: list[StoredRecord], path: str, aggregate_id: str, *, whole: bool) -> None:
    """Raise CorruptLogError unless all rows are of this aggregate id, and no type's versions have a gap.

    If the rows should be ``whole``, because nothing was trimmed or left out, versions must begin with 1.
    """
    versions: dict[str, int] = {}
    for row in rows:
        kind = row.aggregate_type or ""
        before = versions.get(kind, 0 if whole else None)
        expected = row.stream_version if before is None else before + 1
        if row.aggregate_id != aggregate_id or row.stream_version is None or row.stream_version != expected:
            raise CorruptLogError(
                path=path,
                position=row.position,
                reason=f"does not match the index of stream {aggregate_id}: restore a backup",
            )
        versions[kind] = row.stream_version


def _tail_of(
    appender: Appender, aggregate_id: str, aggregate_type: str | None
) -> list[tuple[tuple[str, str], tuple[tuple[int, int], ...]]]:
    if aggregate_type is not None:
        stream = (aggregate_id, aggregate_type)
        return [(stream, tuple(appender.tail.get(stream, ())))]
    streams = [stream for stream in tuple(appender.tail) if stream[0] == aggregate_id]
    return [(stream, tuple(appender.tail.get(stream, ()))) for stream in streams]


def read_unprocessed(
    connection: sqlite3.Connection, path: str, limit: int, unmarked: UnprocessedCache
) -> list[StoredRecord]:
    """Return events that some subscription has not finished, or, without subscriptions, unmarked ones."""
    check_bounds(limit)
    sql = statements()
    cursors = connection.execute(sql["cursors"]).fetchall()
    if not cursors:
        return read_positions(connection, path, unmarked.first(connection, limit))
    positions = {position for (position,) in connection.execute(sql["exceptional_positions"])}
    for _, watermark, _, packed in cursors:
        positions.update(unpack_positions(watermark, packed))
    # A retried dead letter does not keep its event from being trimmed.
    first = connection.execute(sql["first"]).fetchone()[0] or 0
    rows = read_positions(connection, path, sorted(p for p in positions if p >= first)[:limit])
    frontier = min(frontier for _, _, frontier, _ in cursors)
    seen = {row.position for row in rows}
    for row in read_page(connection, path, frontier, limit, None, sys.maxsize).rows:
        if row.position not in seen:
            rows.append(row)
    return sorted(rows)[:limit]


def read_statistics(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return event counts by type and by aggregate type, and the range of positions and times."""
    sql = statements()
    total, first, last, lowest, highest = connection.execute(sql["span"]).fetchone()
    return {
        "total_events": total,
        "events_by_type": dict(connection.execute(sql["count_by_type"]).fetchall()),
        "events_by_aggregate": dict(connection.execute(sql["count_by_aggregate"]).fetchall()),
        "first_position": lowest,
        "last_position": highest,
        "first_occurred_at": first,
        "last_occurred_at": last,
    }
