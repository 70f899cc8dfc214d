"""Named points at which a process kills itself, added to pabal from outside."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pabal import SqliteEventStorage
from pabal.ports.storage import Progress
from pabal.storage.sqlite import appender
from pabal.storage.sqlite import file as storage_module
from pabal.storage.sqlite.schema import connect
from tests.crash.record import SAVED, SAVING, Record
from tests.storage.traced import TracedConnection

STATEMENTS = {
    "before begin": ("before", "BEGIN IMMEDIATE"),
    "in a transaction": ("after", "BEGIN IMMEDIATE"),
    "after an insert": ("after", "INSERT INTO events"),
    "before commit": ("before", "COMMIT"),
    "after commit": ("after", "COMMIT"),
    "before the index": ("before", "INSERT INTO streams"),
    "after the index": ("after", "UPDATE meta"),
}
"""Points in the writer thread: before or after a statement with this beginning."""

HANDLER = ("before a handler", "in a handler", "after a handler")
SAVES = ("before a save", "after a save")

ACK = "after an ack"

POINTS = (*STATEMENTS, ACK, *HANDLER, *SAVES)


def die() -> NoReturn:
    """End the process as ``kill -9`` does, without flushing or closing anything."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class Countdown:
    """Kill the process when a named point is reached for the ``nth`` time."""

    def __init__(self, point: str | None, nth: int) -> None:
        self.point = point
        self._left = nth

    def reached(self, point: str) -> None:
        if point == self.point:
            self._left -= 1
            if self._left <= 0:
                die()


class WatchedStorage(SqliteEventStorage):
    """Record when progress is saved, and kill the process at the points around that."""

    def __init__(self, path: Path, durability: Any, record: Record, countdown: Countdown) -> None:
        self._record = record
        self._countdown = countdown
        super().__init__(path, durability)

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        self._countdown.reached("before a save")
        self._record.note(SAVING)
        lost = await super().save_progress(changes)
        self._record.note(SAVED)
        self._countdown.reached("after a save")
        return lost


def watch_statements(countdown: Countdown) -> None:
    """Add the points of the writer thread to the connections opened from now on."""
    # Often enough that the stream index is extended several times in a short round.
    appender._INDEX_EVERY = 200
    if countdown.point not in STATEMENTS:
        return
    side, beginning = STATEMENTS[countdown.point]
    point = countdown.point

    def check_statement(sql: str) -> None:
        if sql.startswith(beginning):
            countdown.reached(point)

    def connect_traced(path: Path, *, durability: str) -> Any:
        connection = TracedConnection(connect(path, durability=durability))
        hook: Callable[[str], None] = check_statement
        setattr(connection, side, hook)
        return connection

    vars(storage_module)["connect"] = connect_traced
