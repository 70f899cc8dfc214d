"""How long does a restarted bus take to recover?"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.child import call, memory_is_measurable, resident_bytes
from benchmarks.events import OrderPlaced, counting_handler, make_events
from benchmarks.harness import ROOT, Settings, expect_handled, fresh_folder, installed, interleave, run
from benchmarks.logs import fill, names
from benchmarks.model import PABAL, Entry, Metrics, Outcome, Table
from pabal import EventBusFactory

NAME = "recovery"
STARTED = "ms until started"
DONE = "ms until caught up"
GROWTH = "MB of growth"
STOPPED = "after a clean stop"
_SUBSCRIPTIONS = 10
_FLOOR = "raw sqlite3"
_KILLED = 9


async def restart(path: Path, unfinished: int) -> Metrics:
    """Open the log and start ten subscriptions; return the time to start, and to handle everything left."""
    start = time.perf_counter()
    bus, storage = EventBusFactory.create_complete_event_system(path)
    counts = []
    for name in names(_SUBSCRIPTIONS):
        handle, count = counting_handler()
        counts.append(count)
        bus.subscribe(OrderPlaced, handle, name=name)
    await bus.start()
    started = time.perf_counter() - start
    await bus.drain()
    done = time.perf_counter() - start
    await bus.stop()
    await storage.aclose()
    expect_handled(PABAL, sum(count() for count in counts), unfinished * _SUBSCRIPTIONS)
    return {STARTED: started * 1000, DONE: done * 1000}


def grow(path: str) -> Metrics:
    """Return how much memory grows with an open log and ten subscriptions; runs in its own process."""
    return asyncio.run(_grow(Path(path)))


async def _grow(path: Path) -> Metrics:
    before = resident_bytes()
    bus, storage = EventBusFactory.create_complete_event_system(path)
    for name in names(_SUBSCRIPTIONS):
        bus.subscribe(OrderPlaced, counting_handler()[0], name=name)
    async with bus:
        await bus.drain()
        after = resident_bytes()
    await storage.aclose()
    return {GROWTH: (after - before) / 1e6}


def crash(path: Path, events: int) -> None:
    """Have a process publish events that no handler finishes, and exit at once."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scenarios.recovery", str(path.resolve()), str(events)],
        cwd=ROOT,
        check=False,
    )
    expect_handled("the process to be killed", done.returncode, _KILLED)


async def _publish_and_exit(path: Path, events: int) -> None:
    bus, _ = EventBusFactory.create_complete_event_system(path)
    for name in names(_SUBSCRIPTIONS):
        bus.subscribe(OrderPlaced, _never, name=name)
    await bus.start()
    await bus.publish_batch(make_events(events, 1_000, first=int(time.time_ns() // 1_000)))
    os._exit(_KILLED)


async def _never(event: OrderPlaced) -> None:
    await asyncio.get_running_loop().create_future()


def _open_raw(path: Path) -> Metrics:
    start = time.perf_counter()
    connection = sqlite3.connect(path)
    connection.execute("SELECT * FROM subscriptions").fetchall()
    connection.execute("SELECT max(position) FROM events").fetchall()
    done = time.perf_counter() - start
    connection.close()
    return {STARTED: done * 1000, DONE: done * 1000}


def measure(settings: Settings) -> Outcome:
    """Measure a restart after a clean stop and after a kill."""
    events = settings.size(1_000_000, 100_000)
    left = settings.size(10_000, 1_000)
    version = installed("pabal") or ""
    metrics = (DONE, STARTED)
    with fresh_folder(settings) as folder:
        path = folder / "log.db"
        asyncio.run(fill(path, events, keys=1_000))

        def after_kill() -> Metrics:
            crash(path, left)
            return run(restart(path, left))

        entries = [
            Entry(STOPPED, PABAL, metrics, lambda: run(restart(path, 0)), version, "full", events),
            Entry(
                STOPPED,
                PABAL,
                (GROWTH,),
                lambda: call("benchmarks.scenarios.recovery:grow", path=str(path.resolve())),
                version,
                "full",
                events,
                missing="" if memory_is_measurable() else "memory is measured on Linux only",
            ),
            Entry(
                STOPPED,
                _FLOOR,
                metrics,
                lambda: _open_raw(path),
                "",
                "reading",
                events,
                "opens, reads cursors and head",
            ),
            Entry(
                f"killed with {left:,} events unfinished", PABAL, metrics, after_kill, version, "full", events
            ),
        ]
        series = interleave([one for one in entries if settings.wants(one.rival)], settings.runs)
    return Outcome(
        scenario=NAME,
        title="On disk: restart and recovery",
        text=(
            f"A log of {events:,} events and {_SUBSCRIPTIONS} durable subscriptions is opened and started, "
            f"after a clean stop and after the process was killed with {left:,} events published that none "
            f"of the subscriptions had finished ({left * _SUBSCRIPTIONS:,} deliveries to catch up)."
        ),
        tables=(
            Table("Time until a restarted bus has caught up", metrics, "", NAME, lower_is_better=True),
            Table("Memory that a restarted bus takes", (GROWTH,), "", ""),
        ),
        series=tuple(series),
    )


if __name__ == "__main__":
    asyncio.run(_publish_and_exit(Path(sys.argv[1]), int(sys.argv[2])))
