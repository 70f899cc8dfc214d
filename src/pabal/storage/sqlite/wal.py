"""Move the write-ahead log into the file behind the commits, and keep it from growing without bound."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from pathlib import Path

from pabal.storage.sqlite.schema import connect_checkpointer

_log = logging.getLogger("pabal")

LIMIT = 64 << 20
"""Bytes above which the write-ahead log is cut, not only emptied."""
PAUSE = 1.0
"""Seconds between two attempts to cut it."""

_BATCH = 300
"""Pages, as estimated, that are moved at once: few, for a sync of the file delays the syncs of commits."""
_PAGES_PER_COMMIT = 5
_ROWS_PER_PAGE = 10


class WalKeeper:
    """Bound the write-ahead log in tiers, in a thread of its own that begins with the first need.

    SQLite moves the log into the file within a commit, after every 8,000 pages, and whoever publishes then
    waits for some 50 ms. So this thread moves a few hundred at a time, while commits go on; when SQLite's
    turn comes, little is left, and it writes over the log from its beginning. A reader that holds a snapshot
    keeps both from doing so, and the log grows. Once the reader is gone it has to be cut: that waits for
    nobody, and is tried again until it succeeds, also while nothing is written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._wal = f"{path}-wal"
        self._due = threading.Event()
        self._closed = False
        self._pages = 0
        self._changes = 0
        self._thread: threading.Thread | None = None

    def wrote(self, changes: int) -> None:
        """Note a commit, by how many rows its connection has changed until now; from the writer's thread."""
        self._pages += _PAGES_PER_COMMIT + (changes - self._changes) // _ROWS_PER_PAGE
        self._changes = changes
        if self._pages >= _BATCH:
            self._pages = 0
            self._due.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"pabal-wal {self._path}", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread, once nothing is written any longer. Harmless when ended."""
        self._closed = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()

    # -- the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            connection = connect_checkpointer(Path(self._path))
        except sqlite3.Error as error:
            _log.warning("%s: the write-ahead log will be moved within commits: %s", self._wal, error)
            return
        is_long = False
        try:
            while True:
                self._due.wait(PAUSE if is_long else None)
                if self._closed:
                    return
                self._due.clear()
                is_long = self._tend(connection, is_long)
        finally:
            connection.close()

    def _tend(self, connection: sqlite3.Connection, was_long: bool) -> bool:
        """Move the log into the file, and cut it if it is too long; return whether it still is."""
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if os.stat(self._wal).st_size <= LIMIT:
                return False
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return os.stat(self._wal).st_size > LIMIT
        except FileNotFoundError:
            return False
        except (OSError, sqlite3.Error) as error:
            # Whoever writes next meets the same trouble and is told; the log stays as it is.
            _log.warning("%s: the write-ahead log could not be moved: %s", self._wal, error)
            return was_long
