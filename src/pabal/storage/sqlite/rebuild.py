"""Copy a log into a new file, event by event, and build new indexes."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from contextlib import suppress
from itertools import chain
from pathlib import Path

from pabal.domain.envelope import StoredRecord, verify
from pabal.errors import CorruptLogError, StorageUnavailableError
from pabal.storage.sqlite import maintenance
from pabal.storage.sqlite.faults import is_corruption, translated
from pabal.storage.sqlite.projection_copy import copy_projections, note_last_number
from pabal.storage.sqlite.reader import STEPS
from pabal.storage.sqlite.schema import connect
from pabal.storage.sqlite.statements import insert_events, statements

_log = logging.getLogger("pabal")

_CHUNK = 64
_TABLES = (
    "subscriptions",
    "retries",
    "recoveries",
    "replays",
    "moves",
    "dead_letters",
    "queued",
    "scheduled",
    "processed",
    "audit",
)
"""Tables copied besides events and projections; index tables are built again from the events."""


def rebuild(source: sqlite3.Connection, path: str, target: Path, cancelled: threading.Event) -> int:
    """Copy the log and all delivery state into ``target``; return the number of events.

    Raises CorruptLogError if an event is damaged or missing, and StorageUnavailableError.
    """
    target = target.absolute()  # SQLite takes a bare ":memory:" for no file at all
    if os.path.exists(target):
        raise StorageUnavailableError(path=str(target), reason="the file exists and is not overwritten")
    connection: sqlite3.Connection | None = None
    try:
        connection = connect(target, durability="normal")
        connection.set_progress_handler(cancelled.is_set, STEPS)
        with translated(str(target)):
            # One transaction on each side, so that the copy is of one moment.
            source.execute("BEGIN")
            connection.execute("BEGIN IMMEDIATE")
            try:
                count = _copy_events(source, path, connection)
                for table in _TABLES:
                    _copy_table(source, connection, table)
                copy_projections(source, connection)
                connection.execute(statements()["disown_all"])
                _index(connection)
                _copy_trimmed_streams(source, path, connection)
            finally:
                source.execute("ROLLBACK")  # it only read, and SQLite refuses COMMIT after a damaged page
            connection.execute("COMMIT")
            problems = maintenance.check(connection, str(target))
            if problems:
                raise CorruptLogError(path=path, position=None, reason=problems[0])
    except BaseException:
        if connection is not None:
            connection.close()
        for name in (target, Path(f"{target}-wal"), Path(f"{target}-shm")):
            with suppress(OSError):  # the first error says more
                name.unlink(missing_ok=True)
        raise
    connection.close()
    return count


def _copy_events(source: sqlite3.Connection, path: str, target: sqlite3.Connection) -> int:
    count = 0
    after = 0
    while True:
        rows = [StoredRecord._make(row) for row in source.execute(statements()["page"], (after, _CHUNK))]
        for row in rows:
            verify(row, path)
            if count and row.position != after + 1:
                raise CorruptLogError(
                    path=path, position=after + 1, reason=f"the next event is at {row.position}"
                )
            after = row.position
            count += 1
        if not rows:
            return count
        target.execute(insert_events(len(rows)), list(chain.from_iterable(rows)))


def _copy_table(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> None:
    rows = source.execute(f"SELECT * FROM {table}")
    places = ",".join("?" * len(rows.description))
    target.executemany(f"INSERT INTO {table} VALUES ({places})", rows)
    note_last_number(target, table, source.execute(statements()["autoincrement"], (table,)))


def _copy_trimmed_streams(source: sqlite3.Connection, path: str, target: sqlite3.Connection) -> None:
    """Copy the last version of each stream whose events are all trimmed: the next is computed from it."""
    try:
        target.executemany(statements()["insert_stream"], source.execute(statements()["trimmed_streams"]))
    except sqlite3.DatabaseError as error:
        if not is_corruption(error):
            raise
        _log.warning(
            "%s: the index of streams is damaged (%s); streams whose events are all trimmed may begin again "
            "at version 1 in the rebuilt file",
            path,
            error,
        )


def _index(target: sqlite3.Connection) -> None:
    head = target.execute(statements()["head"]).fetchone()[0]
    for statement in ("index_streams", "index_types", "index_correlations"):
        target.execute(statements()[statement], (0, head))
    target.execute(statements()["set_indexed_upto"], (head,))
