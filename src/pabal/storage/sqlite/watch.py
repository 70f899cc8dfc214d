"""Notice commits of other processes, at the cost of reading a few bytes of shared memory."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from pabal.storage.sqlite.faults import translated
from pabal.storage.sqlite.places import read_number
from pabal.storage.sqlite.schema import connect_reader
from pabal.storage.sqlite.statements import statements


class Watch:
    """Poll SQLite for commits of other connections, and read the log's head after one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        """Held while polling or closing: a storage is closed in a thread while a bus may still poll it."""
        self._version = -1
        self._controls: int | None = None
        self.controls_moved = False
        """Whether a control request was seen since this was last set to False."""

    def moved_head(self) -> int | None:
        """Return the log's head if anything was committed since the last call, else None; None if closed."""
        with self._lock:
            return None if self._is_closed else self._poll()

    def _poll(self) -> int | None:
        if self._connection is None:
            self._connection = connect_reader(self._path)
        with translated(str(self._path)):
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
            if version == self._version:
                return None
            self._version = version
            head: int = self._connection.execute(statements()["head"]).fetchone()[0]
            controls = read_number(self._connection, str(self._path), "controls")
        if controls != self._controls:
            self.controls_moved = True
        self._controls = controls
        return head

    def close(self) -> None:
        """Close the connection for good."""
        with self._lock:
            self._is_closed = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None
