"""How long does it take from a publish in one process until the handler starts in another?"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.events import OrderPlaced, make_events
from benchmarks.harness import ROOT, Settings, expect_handled, fresh_folder, interleave, run
from benchmarks.model import PABAL, Entry, Metrics, Outcome, Table, percentile
from pabal import EventBusFactory, SqliteEventStorage

NAME = "processes"
CASE = "50 events/s"
METRICS = ("p50 ms", "p99 ms", "max ms")
LOOKING = "pabal, polling only"
_PAUSE = 0.02
_TOO_LONG = "x" * 120
"""With a folder of this name, the path of a socket is too long, so no process can be signalled."""


async def delays(path: Path, count: int) -> Metrics:
    """Publish here, handle in another process, and return the distribution of the latencies."""
    events = make_events(count, 1_000)
    async with SqliteEventStorage(path) as storage:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.scenarios.processes", str(path), str(count)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )
        assert process.stdout is not None
        expect_handled("the listener", int((await process.stdout.readline()).strip() == b"ready"), 1)
        published: list[int] = []
        for event in events:
            published.append(time.monotonic_ns())
            await storage.store_event(event)
            await asyncio.sleep(_PAUSE)
        answer, _ = await process.communicate()
    heard: list[int] = json.loads(answer)
    expect_handled(PABAL, len(heard), count)
    waits = sorted((at - begun) / 1e6 for at, begun in zip(heard, published, strict=True))
    return {"p50 ms": percentile(waits, 0.5), "p99 ms": percentile(waits, 0.99), "max ms": waits[-1]}


async def listen(path: str, count: int) -> None:
    """Handle ``count`` events, and print their times (monotonic, the same clock in every process)."""
    heard: list[int] = []
    enough = asyncio.Event()

    async def handle(event: OrderPlaced) -> None:
        heard.append(time.monotonic_ns())
        if len(heard) == count:
            enough.set()

    bus = EventBusFactory.create_default_event_bus(path)
    bus.subscribe(OrderPlaced, handle, name="listener", ordering=lambda event: "all")
    async with bus:
        print("ready", flush=True)
        await enough.wait()
    print(json.dumps(heard), flush=True)


def _measure(settings: Settings, folder: str, count: int) -> Metrics:
    with fresh_folder(settings) as fresh:
        place = fresh.resolve() / folder
        place.mkdir()
        return run(delays(place / "log.db", count))


def measure(settings: Settings) -> Outcome:
    """Measure with and without the signal to other processes (the bell), in turn."""
    count = settings.size(500, 50)
    entries = [
        Entry(
            case=CASE,
            rival=rival,
            metrics=METRICS,
            measure=partial(_measure, settings, folder, count),
            durability="full",
            events=count,
        )
        for rival, folder in ((PABAL, "log"), (LOOKING, _TOO_LONG))
        if settings.wants(rival)
    ]
    return Outcome(
        scenario=NAME,
        title="From one process to another",
        text=(
            "One process appends 50 events a second to a file, synced one by one; a bus in another handles "
            "them. Latency is measured from the call that appends to the start of the handler. "
            f"“{LOOKING}” is in a folder whose path is too long for a socket, so nothing wakes the reader."
        ),
        tables=(
            Table("Publish in one process to handler in another", METRICS, "", NAME, lower_is_better=True),
        ),
        series=tuple(interleave(entries, settings.runs)),
    )


if __name__ == "__main__":
    asyncio.run(listen(sys.argv[1], int(sys.argv[2])))
