"""Back up a database file while it is in use, and check it for damage."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pabal.domain.envelope import EventRecord, StoredRecord, id_to_text, verify
from pabal.errors import CorruptLogError, StorageUnavailableError
from pabal.storage.sqlite.dead_letters import damaged_letters
from pabal.storage.sqlite.faults import UNDECODABLE, readable, translate
from pabal.storage.sqlite.places import check_gap
from pabal.storage.sqlite.schedule import scheduled_row
from pabal.storage.sqlite.statements import statements

Progress = Callable[[int, int], object]
"""Called with the amount done and the total amount."""

_PAGE = 1000
_STEP_PAGES = 1024


class CopyCancelledError(Exception):
    """The caller was cancelled, so the work is broken off."""


def copy(
    connection: sqlite3.Connection, target: Path, progress: Progress, cancelled: threading.Event
) -> None:
    """Copy the database, as it is at this moment, to a new file; leave no file if that fails."""
    name = str(target.absolute())  # SQLite takes a bare ":memory:" for no file at all
    if os.path.exists(target):
        raise StorageUnavailableError(path=name, reason="the file exists, and backups never overwrite a file")
    try:
        destination = sqlite3.connect(name)
    except sqlite3.Error as error:
        raise translate(error, name) from error
    size = connection.execute("PRAGMA page_size").fetchone()[0]

    def step_done(status: int, left: int, pages: int) -> None:
        progress((pages - left) * size, pages * size)
        if cancelled.is_set():
            raise CopyCancelledError

    # Hold a read transaction: without one, a commit of the writer between two steps restarts the copy.
    connection.execute("BEGIN")
    try:
        destination.execute("PRAGMA fullfsync = ON")  # as for the log; it matters on macOS
        connection.execute("SELECT 1 FROM meta").fetchone()
        connection.backup(destination, pages=_STEP_PAGES, progress=step_done)
    except BaseException as error:
        destination.close()
        with suppress(OSError):  # the first error says more; on Windows a virus scanner may have it open
            target.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            raise translate(error, name) from error
        raise
    finally:
        connection.execute("ROLLBACK")
        destination.close()


def check(
    connection: sqlite3.Connection, path: str, progress: Progress = lambda done, total: None
) -> list[str]:
    """Verify the file's structure and every event's checksum; return a sentence for each problem."""
    problems: list[str] = []
    try:
        problems += [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
        problems += _check_events(connection, path, progress)
        problems += _check_streams(connection)
        problems += damaged_letters(connection, path)
    except sqlite3.DatabaseError as error:
        if str(error).startswith(UNDECODABLE):
            raise  # the reader runs the check again, reading damaged text so that it finds the row
        problems.append(str(translate(error, path)))
    return problems


def _check_events(connection: sqlite3.Connection, path: str, progress: Progress) -> list[str]:
    problems: list[str] = []
    first = connection.execute(statements()["first"]).fetchone()[0]
    after = min(1, 1 if first is None else first) - 1
    expected: int | None = None
    head = connection.execute(statements()["head"]).fetchone()[0]
    while True:
        rows = [StoredRecord._make(row) for row in connection.execute(statements()["page"], (after, _PAGE))]
        for row in rows:
            if expected is not None and expected != row.position:
                problems += _found_by(check_gap, connection, path, expected, row.position)
            expected = row.position + 1
            problems += _found_by(verify, row, path)
        if not rows:
            break
        after = rows[-1].position
        progress(after, max(after, head))
    for columns in connection.execute(statements()["all_scheduled"]):
        record = EventRecord._make(columns)
        try:
            with readable(path):
                verify(scheduled_row(record), path)
        except CorruptLogError:
            name = id_to_text(record.event_id) if _is_id(record.event_id) else repr(record.event_id)
            problems.append(f"{path}: the scheduled event {name} is damaged and will not be released")
    return problems


def _found_by(look: Callable[..., None], *at: Any) -> list[str]:
    try:
        look(*at)
    except CorruptLogError as error:
        return [str(error)]
    return []


def _is_id(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == 16


def _check_streams(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(statements()["misindexed"]).fetchall()
    return [
        f"the index of stream {kind}/{aggregate_id} is wrong about version {version} at position {position}"
        for aggregate_id, kind, version, position in rows
    ]
