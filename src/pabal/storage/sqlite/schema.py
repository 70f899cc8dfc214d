"""Open a database file: check that it is a pabal database and not damaged, and migrate its schema."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable
from math import prod
from pathlib import Path, PurePath
from urllib.parse import quote_from_bytes

from pabal.errors import (
    CorruptLogError,
    NewerSchemaError,
    NotAPabalDatabaseError,
    StorageUnavailableError,
)
from pabal.storage.sqlite.faults import is_busy, translated
from pabal.storage.sqlite.statements import migration_script, schema_script

APPLICATION_ID = 0x50414241
"""``PABA`` in ASCII: the application id in the file header that identifies a pabal database."""

SCHEMA_VERSION = 3

Migration = Callable[[sqlite3.Connection], None]
MIGRATIONS: dict[int, Migration] = {
    1: lambda connection: _run(connection, migration_script(1)),
    2: lambda connection: _run(connection, migration_script(2)),
}
"""The migration from each version to the next. A migrated schema equals a new one (tested)."""

CHECKPOINT_PAGES = 8000
"""Pages in the write-ahead log at which a commit copies them into the file."""

_BUSY_MS = 10_000


def connect(path: Path, *, durability: str) -> sqlite3.Connection:
    """Open the writing connection, with an up-to-date schema; create the file if it does not exist.

    Raises StorageUnavailableError, NotAPabalDatabaseError, NewerSchemaError or CorruptLogError, and then
    leaves the file unchanged.
    """
    name = str(path)
    try:
        _check_place(path)
        with translated(name):
            _check_log(path)
    except OSError as error:
        raise StorageUnavailableError(path=name, reason=error.strerror or str(error)) from error
    with translated(name):
        connection = sqlite3.connect(
            name, isolation_level=None, check_same_thread=False, cached_statements=256
        )
    try:
        with translated(name):
            connection.text_factory = decode_text
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            _check_identity(connection, name)
            _check_size(connection, path)
            # This takes effect only in an empty file. It lets ``vacuum`` return free space in small steps.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            _use_wal(connection, name)
            connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
            # On macOS an ordinary fsync may leave data in the disk's own cache; F_FULLFSYNC does not.
            connection.execute(f"PRAGMA fullfsync = {'ON' if durability == 'full' else 'OFF'}")
            connection.execute("PRAGMA checkpoint_fullfsync = ON")
            # A 64 MiB page cache and a checkpoint every 8,000 pages make bulk inserts 1.6 times faster than
            # SQLite's defaults.
            connection.execute("PRAGMA cache_size = -65536")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that only reads; it does not create the file if that is gone."""
    with translated(str(path)):
        connection = sqlite3.connect(
            file_uri(path.absolute(), "rw"), uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA cache_size = -8192")  # it reads the file, so it may fail
        except BaseException:
            connection.close()
            raise
    return connection


def file_uri(path: PurePath, mode: str) -> str:
    """Return SQLite's URI for an absolute path; ``as_uri`` would make a Windows share's host an authority."""
    name = quote_from_bytes(os.fsencode(path.as_posix()))
    return f"file://{name if name.startswith('/') else '/' + name}?mode={mode}"


def decode_text(raw: bytes) -> str:
    """Decode text even if its bytes are damaged, so that the row's checksum can be verified."""
    return raw.decode("utf-8", "surrogateescape")


def _check_place(path: Path) -> None:
    name = str(path)
    if path.is_dir():
        raise StorageUnavailableError(path=name, reason="this is a directory, not a file")
    if not path.parent.is_dir():
        raise StorageUnavailableError(path=name, reason=f"the directory {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise StorageUnavailableError(path=name, reason=f"the directory {path.parent} cannot be written")
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would block
        raise StorageUnavailableError(path=name, reason="this is a pipe, a socket or a device, not a file")
    if found.st_size == 1:  # SQLite takes this for an empty file
        raise NotAPabalDatabaseError(path=name, reason="not an SQLite file")
    if not os.access(path, os.W_OK):
        raise StorageUnavailableError(path=name, reason="the file is read-only")
    if found.st_nlink > 1:
        # SQLite keeps a write-ahead log per name, so connections by different names overwrite each other.
        reason = "the file has other names, which are hard links; remove those, or open a copy"
        raise StorageUnavailableError(path=name, reason=reason)


def _check_log(path: Path) -> None:
    """Raise for another program's file with a write-ahead log: closing it would copy the log into the file.

    Only SQLite may open the file, here and elsewhere. When a process closes any other descriptor of it, the
    system drops all locks that the process has on it. Another process that closes the file then takes itself
    for the last one, and deletes the log that we write: https://sqlite.org/howtocorrupt.html (2.2)
    """
    if not _has_log(path):
        return
    # This connection reads only the file, so its cost does not depend on the length of the log.
    connection = sqlite3.connect(f"{file_uri(path, 'ro')}&immutable=1", uri=True, isolation_level=None)
    try:
        mark = connection.execute("PRAGMA application_id").fetchone()[0]
    except sqlite3.DatabaseError:
        mark = None  # its first page may be in the log
    finally:
        connection.close()
    if mark != APPLICATION_ID:
        _look_only(path)


def _has_log(path: Path) -> bool:
    try:
        return os.stat(f"{path}-wal").st_size > 0
    except FileNotFoundError:
        return False


def _look_only(path: Path) -> None:
    connection = sqlite3.connect(file_uri(path, "ro"), uri=True, isolation_level=None)
    try:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        _check_identity(connection, str(path))
    finally:
        connection.close()


def _use_wal(connection: sqlite3.Connection, name: str) -> None:
    """Switch to write-ahead logging, even while other processes do the same to a new file."""
    deadline = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            # SQLite's busy timeout does not apply here: two connections switching at once would deadlock.
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise StorageUnavailableError(
                path=name, reason="this file system does not support a write-ahead log"
            )
        return


def _check_identity(connection: sqlite3.Connection, name: str) -> None:
    # Count the tables before reading the id: a process that creates the schema meanwhile commits both at
    # once, so a table never shows without the id.
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    if mark != APPLICATION_ID and (mark != 0 or tables != 0):
        raise NotAPabalDatabaseError(path=name, reason="another program's SQLite database")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            path=name, reason="written by a newer pabal", found=version, supported=SCHEMA_VERSION
        )


def _check_size(connection: sqlite3.Connection, path: Path) -> None:
    """Raise if the file's end is missing; SQLite would notice that at the first read of its last page."""
    connection.execute("BEGIN")  # until it ends, no other process can make the file shorter
    try:
        expected = prod(
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
        )
        size = os.stat(path).st_size
        if size < expected and not _has_log(path):
            raise CorruptLogError(
                path=str(path), position=None, reason=f"truncated: {size} of {expected} bytes are left"
            )
    finally:
        connection.execute("ROLLBACK")


def _migrate(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have migrated the file while we waited for the lock.
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            _run(connection, schema_script())
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            version = SCHEMA_VERSION
        while version < SCHEMA_VERSION:
            MIGRATIONS[version](connection)
            version += 1
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _run(connection: sqlite3.Connection, script: str) -> None:
    """Execute a script inside the open transaction; ``executescript`` would commit that first."""
    for statement in _split(script):
        connection.execute(statement)


def _split(script: str) -> list[str]:
    statements: list[str] = []
    text = ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            statements.append(text)
            text = ""
    return statements
