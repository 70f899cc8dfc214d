"""Keep SQLite's write-ahead log from growing without bound."""

from __future__ import annotations

import logging
import os
import sqlite3
import time

_log = logging.getLogger("pabal")

LIMIT = 64 << 20
"""Size in bytes above which the write-ahead log is truncated; below it, SQLite's own checkpoints suffice."""
PAUSE = 1.0
"""Seconds between two checks of its size, and between two attempts to truncate it."""


class WalKeeper:
    """Bound the write-ahead log; used by the writer thread only.

    SQLite copies the log into the file (a checkpoint) every 8,000 pages, without waiting for readers, and
    then overwrites the log from its start. A reader that holds a snapshot prevents this, and the log grows.
    Once the reader is gone the log must be truncated. The attempt does not wait for readers either, and is
    repeated until it succeeds, even while nothing is written.

    Publishers wait meanwhile, because the writing connection does all this. A second connection could do it
    beside them, but before SQLite 3.51.3 that can damage the file:
    https://sqlite.org/wal.html#walresetbug
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._wal = f"{path}-wal"
        self._checked_at = 0.0
        self.is_large = False
        """Whether the log exceeds ``LIMIT``; the writer thread then calls ``check`` again after ``PAUSE``."""

    def check(self) -> None:
        """Truncate the log if it is too large. Cheap: checks at most once per ``PAUSE``."""
        now = time.monotonic()
        if now - self._checked_at < PAUSE:
            return
        self._checked_at = now
        try:
            self.is_large = os.stat(self._wal).st_size > LIMIT
            if self.is_large:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self.is_large = os.stat(self._wal).st_size > LIMIT
        except FileNotFoundError:
            self.is_large = False
        except (OSError, sqlite3.Error) as error:
            # The log stays as it is. The next write meets the same problem and reports it to its caller.
            _log.warning("%s: the write-ahead log could not be truncated: %s", self._wal, error)
