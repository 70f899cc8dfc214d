"""Does an event cost more when the log is large?"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from functools import partial
from pathlib import Path

from benchmarks.events import OrderPlaced, counting_handler, make_events
from benchmarks.harness import Settings, expect_handled, fresh_folder, installed, interleave, run
from benchmarks.logs import fill
from benchmarks.model import PABAL, Entry, Metrics, Outcome, Table
from pabal import EventBusFactory

NAME = "growth"
METRIC = "µs/event"
_FEW, _MANY = 100_000, 5_000_000
_KEYS = 10_000
ACTIVE = (1_000, _KEYS)
SMALL = f"pabal, log of {_FEW:,} events"
LARGE = f"pabal, log of {_MANY:,} events"
_numbers = itertools.count(10_000_000, 1_000_000)


def case_name(active: int) -> str:
    """Return the name of a case in tables and goals."""
    return f"events of {active:,} aggregates"


async def append(path: Path, count: int, active: int) -> Metrics:
    """Publish ``count`` events of ``active`` aggregates until all are handled; return the cost of one."""
    events = make_events(count, active, first=next(_numbers))
    bus, storage = EventBusFactory.create_complete_event_system(path)
    handle, handled = counting_handler()
    bus.subscribe(OrderPlaced, handle, name="handler")
    await bus.start()

    async def publish(mine: list[OrderPlaced]) -> None:
        for at in range(0, len(mine), 1_000):
            await bus.publish_batch(mine[at : at + 1_000])

    start = time.perf_counter()
    await asyncio.gather(*[publish(events[number::4]) for number in range(4)])
    await bus.drain()
    seconds = time.perf_counter() - start
    await bus.stop()
    await storage.aclose()
    expect_handled(PABAL, handled(), count)
    return {METRIC: seconds / count * 1e6}


def measure(settings: Settings) -> Outcome:
    """Append to a small and a large log in turn; the small one is restored before each run."""
    count = 100_000
    version = installed("pabal") or ""
    with fresh_folder(settings) as folder:
        small, large, original = folder / "small.db", folder / "large.db", folder / "original.db"
        asyncio.run(fill(original, _FEW, keys=_KEYS))
        asyncio.run(fill(large, _MANY, keys=_KEYS))

        def append_to_small(active: int) -> Metrics:
            small.unlink(missing_ok=True)
            shutil.copyfile(original, small)
            return run(append(small, count, active))

        def append_to_large(active: int) -> Metrics:
            return run(append(large, count, active))

        entries = [
            Entry(case_name(active), rival, (METRIC,), partial(measured, active), version, "full", count)
            for active in ACTIVE
            for rival, measured in ((SMALL, append_to_small), (LARGE, append_to_large))
        ]
        series = interleave(entries, settings.runs)
        size = large.stat().st_size / 2**20
    return Outcome(
        scenario=NAME,
        title="On disk: growth of cost with the log",
        text=(
            f"{count:,} more events are published by `publish_batch(1000)` from four publishers into a log "
            f"of {_FEW:,} and into one of {_MANY:,} events ({size:,.0f} MiB) of {_KEYS:,} aggregates, end to "
            "end: once with events of some of the aggregates, as if most had ended, and once of all of them. "
            "The operating system may have the file in its cache."
        ),
        tables=(Table("Cost of an event by size of the log", (METRIC,), SMALL, NAME, lower_is_better=True),),
        series=tuple(series),
    )
