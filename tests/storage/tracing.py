"""Trace the writing connections of storages, and stop their writer threads at a statement."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pabal.storage.sqlite import file as storage_module
from pabal.storage.sqlite.schema import connect
from tests.storage.traced import TracedConnection


class Tracer:
    """Give traced connections to storages that are opened from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connections: list[TracedConnection] = []
        monkeypatch.setattr(storage_module, "connect", self._connect)

    def _connect(self, path: Path, *, durability: str) -> TracedConnection:
        self.connections.append(TracedConnection(connect(path, durability=durability)))
        return self.connections[-1]


class Gate:
    """Stop the writer thread at one statement until the test opens the gate."""

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, sql: str) -> None:
        if sql == self._sql:
            self._reached.set()
            assert self._open.wait(20), "the test never opened the gate"

    def wait_until_reached(self) -> None:
        assert self._reached.wait(20), f"nobody came to {self._sql}"

    def open(self) -> None:
        self._open.set()
