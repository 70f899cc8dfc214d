"""Step 3: events are stored on disk first, and each subscription remembers how far it has come.

Run it twice: ``python -m examples.small_bus.step3_storage``. The first run is killed in the middle.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from examples.small_bus.step1_interface import Event, Handler, OrderPlaced

P = ParamSpec("P")
R = TypeVar("R")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (position INTEGER PRIMARY KEY, type TEXT NOT NULL, payload TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cursors (subscription TEXT PRIMARY KEY, position INTEGER NOT NULL);
"""


class SqliteLog:
    """Store events in the order of their positions, and one cursor for each subscription."""

    def __init__(self, path: Path) -> None:
        # The bus calls it from a single thread of its own.
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + _SCHEMA)

    def append(self, event: Event) -> int:
        """Store an event and return its position; it is on disk when this returns."""
        row = (type(event).__name__, json.dumps(asdict(event)))
        position = self._connection.execute("INSERT INTO events (type, payload) VALUES (?, ?)", row).lastrowid
        assert position is not None
        return position

    def read_after(self, position: int, limit: int) -> list[tuple[int, str, str]]:
        """Return up to ``limit`` rows (position, type, payload) after a position."""
        query = "SELECT position, type, payload FROM events WHERE position > ? ORDER BY position LIMIT ?"
        return self._connection.execute(query, (position, limit)).fetchall()

    def end(self) -> int:
        """Return the position of the newest event, or 0 if there is none."""
        [(position,)] = self._connection.execute("SELECT ifnull(max(position), 0) FROM events")
        return int(position)

    def cursor(self, subscription: str) -> int:
        """Return the position up to which a subscription has handled all events."""
        query = "SELECT position FROM cursors WHERE subscription = ?"
        row = self._connection.execute(query, (subscription,)).fetchone()
        return row[0] if row else 0

    def move_cursor(self, subscription: str, position: int) -> None:
        """Store that a subscription has handled all events up to a position."""
        self._connection.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (subscription, position))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class DurableBus:
    """Append events to a log, and let each subscription read it at its own pace.

    There are no queues any more: the log is the queue, and it survives the process.
    """

    def __init__(self, log: SqliteLog, event_types: list[type[Event]], delay: float = 0.1) -> None:
        self._log = log
        self._delay = delay
        self._types = {event_type.__name__: event_type for event_type in event_types}
        self._subscriptions: dict[str, tuple[type[Event], Handler]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._end = 0
        self._cursors: dict[str, int] = {}
        self._changed = asyncio.Condition()
        # A single thread for the file: the event loop is never blocked, and calls never overlap.
        self._disk = ThreadPoolExecutor(max_workers=1)

    def subscribe(self, event_type: type[Event], handler: Handler, name: str) -> None:
        """Subscribe under a name, by which the cursor is found again after a restart."""
        self._subscriptions[name] = (event_type, handler)

    async def start(self) -> None:
        """Continue each subscription where it stopped."""
        self._end = await self._on_disk(self._log.end)
        for name in self._subscriptions:
            self._cursors[name] = await self._on_disk(self._log.cursor, name)
        self._tasks = [asyncio.create_task(self._follow(name)) for name in self._subscriptions]

    async def stop(self) -> None:
        """Stop. Unfinished events stay in the log."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._disk.shutdown()

    async def publish(self, event: Event) -> None:
        """Store an event; return when it is on disk."""
        self._end = await self._on_disk(self._log.append, event)
        async with self._changed:
            self._changed.notify_all()

    async def drain(self) -> None:
        """Return when every subscription has handled everything published so far."""
        goal = self._end
        async with self._changed:
            await self._changed.wait_for(lambda: all(cursor >= goal for cursor in self._cursors.values()))

    async def _on_disk(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._disk, partial(call, *args, **kwargs))

    async def _follow(self, name: str) -> None:
        event_type, handler = self._subscriptions[name]
        while True:
            rows = await self._on_disk(self._log.read_after, self._cursors[name], 100)
            for position, type_name, payload in rows:
                event = self._types[type_name](**json.loads(payload))
                if isinstance(event, event_type):
                    await self._until_done(handler, event)
                # After the handler, not before: a crash between the two repeats the event, but loses none.
                await self._on_disk(self._log.move_cursor, name, position)
                async with self._changed:
                    self._cursors[name] = position
                    self._changed.notify_all()
            if not rows:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._end > self._cursors[name])

    async def _until_done(self, handler: Handler, event: Event) -> None:
        """Retry until it works, because skipping the event would lose it. Other subscriptions do not wait."""
        delay = self._delay
        while True:
            try:
                return await handler(event)
            except Exception as error:
                print(f"{handler.__name__} failed with {event}: {error!r}; again in {delay:.1f} s")
                await asyncio.sleep(delay)
                delay = min(delay * 2, 30.0)


async def main() -> None:
    """In the first run, get killed in the middle of three orders; in the second, finish them."""
    path = Path(tempfile.gettempdir()) / "small_bus_step3.db"
    second_run = path.exists()
    bus = DurableBus(log := SqliteLog(path), [OrderPlaced])

    async def write_invoice(event: Event) -> None:
        if event.key == "o-2" and not second_run:
            print("ledger: killed at o-2. Run it again.", flush=True)
            os._exit(1)
        print(f"ledger: invoice for {event.key}")

    bus.subscribe(OrderPlaced, write_invoice, name="ledger")
    if not second_run:
        for number in range(1, 4):
            await bus.publish(OrderPlaced(f"o-{number}", quantity=1))
    await bus.start()
    await bus.drain()
    await bus.stop()
    log.close()
    path.unlink()


if __name__ == "__main__":
    asyncio.run(main())
