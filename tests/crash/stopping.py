"""Stop a bus on a file: many times under traffic, and with a thousand handlers running."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from pabal import InMemoryEventBus, SqliteEventStorage
from tests.crash.events import Step
from tests.descriptors import open_files

IN_FLIGHT = 1_000
AT_ONCE = 20
LATE = -1


def _open_resources(folder: Path) -> tuple[int, int, list[str]]:
    """Return the number of tasks and threads, and the files of a folder that this process has open."""
    gc.collect()
    threads = sum("pabal" in thread.name for thread in threading.enumerate())
    return len(asyncio.all_tasks()), threads, sorted(open_files(folder))


async def start_and_stop(path: Path, cycles: int) -> tuple[int, list[str]]:
    """Start a bus, publish, and stop it while it handles the events, many times. Promise 7.

    Returns the number of acked events, and what is wrong.
    """
    acked: list[str] = []
    handled: Counter[str] = Counter()

    async def handle(event: Step) -> None:
        await asyncio.sleep(0)
        handled[event.event_id] += 1

    before = _open_resources(path.parent)
    for cycle in range(cycles + 1):
        async with SqliteEventStorage(path, durability="normal") as storage:
            bus = InMemoryEventBus(storage, worker_count=2)
            bus.subscribe(Step, handle, name="handler")
            await bus.start()
            if cycle < cycles:
                steps = [Step(f"key-{number % 3}", cycle) for number in range(AT_ONCE)]
                receipts = await asyncio.gather(*map(bus.publish, steps))
                acked += [receipt.event_id for receipt in receipts]
            else:
                await bus.drain(60)
            await bus.stop(timeout=5)
    after = _open_resources(path.parent)
    wrong = [f"left running or open: {after}, before {before}"] if after != before else []
    wrong += [
        f"{event_id} was handled {handled[event_id]} times" for event_id in acked if handled[event_id] != 1
    ]
    return len(acked), wrong


class StopResult(NamedTuple):
    """The result of a stop."""

    seconds: float
    finished: int
    """Number of handlers that ended within the budget."""
    redelivered: int
    """Number of deliveries that were made again after the next start."""
    wrong: list[str]


async def stop_in_flight(path: Path, budget: float) -> StopResult:
    """Stop with a thousand handlers running, of which half never end, and a publisher. Promise 8."""
    entered = asyncio.Semaphore(0)
    release, never = asyncio.Event(), asyncio.Event()
    finished: list[int] = []
    redelivered: list[int] = []
    published: list[int] = []

    async def handle(event: Step) -> None:
        entered.release()
        await (release if event.number % 2 else never).wait()
        finished.append(event.number)

    async def handle_again(event: Step) -> None:
        redelivered.append(event.number)

    async def publish_forever(bus: InMemoryEventBus) -> None:
        while True:
            await bus.publish(Step("late", LATE))
            published.append(LATE)

    async with SqliteEventStorage(path) as storage:
        bus = InMemoryEventBus(storage, worker_count=IN_FLIGHT)
        bus.subscribe(Step, handle, name="handler")
        await bus.start()
        await bus.publish_batch([Step(f"key-{number}", number) for number in range(IN_FLIGHT)])
        for _ in range(IN_FLIGHT):
            await entered.acquire()
        publisher = asyncio.ensure_future(publish_forever(bus))
        asyncio.get_running_loop().call_later(budget / 2, release.set)
        begun = time.monotonic()
        await bus.stop(timeout=budget)
        seconds = time.monotonic() - begun
        await bus.stop(timeout=budget)
        wrong = []
        (error,) = await asyncio.gather(publisher, return_exceptions=True)
        if type(error).__name__ != "BusNotRunningError":
            wrong.append(f"the publisher ended with {error!r}")
        bus = InMemoryEventBus(storage)
        bus.subscribe(Step, handle_again, name="handler")
        async with bus:
            await bus.drain(60)
    late = [number for number in redelivered if number == LATE]
    redelivered = [number for number in redelivered if number != LATE]
    if sorted(finished) != list(range(1, IN_FLIGHT, 2)):
        wrong.append(f"{len(finished)} handlers ended, {IN_FLIGHT // 2} could")
    if sorted(redelivered) != list(range(0, IN_FLIGHT, 2)):
        wrong.append(f"{len(redelivered)} came again, {IN_FLIGHT // 2} had not ended")
    if len(late) < len(published):
        wrong.append(f"{len(published)} were acked during the stop, {len(late)} came")
    return StopResult(seconds, len(finished), len(redelivered), wrong)
