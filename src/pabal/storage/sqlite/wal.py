"""Keep the write-ahead log from growing without bound: a little after each commit, more past a limit."""

from __future__ import annotations

import logging
import os
import sqlite3
import time

_log = logging.getLogger("pabal")

LIMIT = 64 << 20
"""Bytes above which the write-ahead log is cut, not only emptied."""
PAUSE = 1.0
"""Seconds between two looks at its size, and between two attempts to cut it."""


class WalKeeper:
    """Bound the write-ahead log in tiers; used by the writer's thread alone.

    SQLite itself moves the log into the file after every 8,000 pages, without waiting for anybody, and writes
    over it from its beginning. A reader that holds a snapshot keeps it from doing so, and the log grows. Once
    the reader is gone it has to be cut: that waits for nobody either, and is tried again until it succeeds,
    also while nothing is written.

    Publishers wait meanwhile, for it is the connection that writes that does all this. A second one could do
    it beside them, but before SQLite 3.51.3 that can damage the file: https://sqlite.org/wal.html#walresetbug
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._wal = f"{path}-wal"
        self._looked_at = 0.0
        self.is_large = False
        """The log is above the limit, so somebody should come back after ``PAUSE``."""

    def look(self) -> None:
        """Cut the log if it is too long. Cheap: looks once a second."""
        now = time.monotonic()
        if now - self._looked_at < PAUSE:
            return
        self._looked_at = now
        try:
            self.is_large = os.stat(self._wal).st_size > LIMIT
            if self.is_large:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self.is_large = os.stat(self._wal).st_size > LIMIT
        except FileNotFoundError:
            self.is_large = False
        except (OSError, sqlite3.Error) as error:
            # Whoever writes next meets the same trouble and is told; the log stays as it is.
            _log.warning("%s: the write-ahead log could not be cut: %s", self._wal, error)
