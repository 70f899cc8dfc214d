"""How much memory does a queued event take, and does memory stay bounded with a full queue?"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from typing import Any

from benchmarks.child import call, memory_is_measurable, peak_bytes, reset_peak, resident_bytes
from benchmarks.events import OrderPlaced, counting_handler, fields_of, make_events
from benchmarks.harness import Settings, expect_handled, installed, interleave
from benchmarks.model import PABAL, Entry, Metrics, Outcome, Table
from pabal import InMemoryEventBus

NAME = "memory"
PER_EVENT = "bytes per queued event"
GROWTH = "MB of growth"
THROUGH = "through a queue of 10,000"
_FLOOR = "collections.deque"
_QUEUE = "asyncio.Queue"


def queued_case(keys: int) -> str:
    """Return the name of a case in tables and goals."""
    return f"queued, {keys:,} key{'s' if keys > 1 else ''}"


def queued(rival: str, events: int, keys: int) -> Metrics:
    """Queue existing events behind a handler that does not finish; runs in its own process."""
    return asyncio.run(_queued(rival, events, keys))


async def _queued(rival: str, events: int, keys: int) -> Metrics:
    made = make_events(events, keys)
    gc.collect()
    before = resident_bytes()
    if rival == PABAL:
        after = await _queue_in_pabal(made)
    elif rival == _QUEUE:
        queue: asyncio.Queue[OrderPlaced] = asyncio.Queue()
        for event in made:
            queue.put_nowait(event)
        after = resident_bytes()
    else:
        kept = deque(made)
        after = resident_bytes()
        expect_handled(rival, len(kept), events)
    return {PER_EVENT: (after - before) / events}


async def _queue_in_pabal(made: list[OrderPlaced]) -> int:
    gate = asyncio.Event()
    seen = 0

    async def handle(event: OrderPlaced) -> None:
        nonlocal seen
        await gate.wait()
        seen += 1

    bus = InMemoryEventBus(max_queue_size=len(made) + 1)
    bus.subscribe(OrderPlaced, handle, name="handler")
    async with bus:
        for event in made:
            await bus.publish(event)
        after = resident_bytes()
        gate.set()
        await bus.drain()
    expect_handled(PABAL, seen, len(made))
    return after


def through(rival: str, events: int) -> Metrics:
    """Pass events, created one by one, through a bounded queue; return the peak growth of memory."""
    return asyncio.run(_through(rival, events))


async def _through(rival: str, events: int) -> Metrics:
    handle, count = counting_handler()
    queue: asyncio.Queue[OrderPlaced] = asyncio.Queue(10_000)

    async def worker() -> None:
        while True:
            event = await queue.get()
            await handle(event)
            queue.task_done()

    gc.collect()
    reset_peak()
    before = resident_bytes()
    if rival == PABAL:
        bus = InMemoryEventBus()
        bus.subscribe(OrderPlaced, handle, name="handler")
        async with bus:
            for number in range(events):
                await bus.publish(OrderPlaced(*fields_of(number, 1_000)))
    else:
        workers = [asyncio.create_task(worker()) for _ in range(4)]
        for number in range(events):
            await queue.put(OrderPlaced(*fields_of(number, 1_000)))
        await queue.join()
        for task in workers:
            task.cancel()
    expect_handled(rival, count(), events)
    return {GROWTH: (peak_bytes() - before) / 1e6}


def measure(settings: Settings) -> Outcome:
    """Measure in fresh processes."""
    events = settings.size(1_000_000, 100_000)
    version = installed("pabal") or ""
    missing = "" if memory_is_measurable() else "memory is measured on Linux only"

    def child(function: str, **arguments: Any) -> Metrics:
        return call(f"benchmarks.scenarios.memory:{function}", **arguments)

    def entry(case: str, rival: str, metric: str, function: str, **arguments: Any) -> Entry:
        return Entry(
            case,
            rival,
            (metric,),
            lambda: child(function, rival=rival, events=events, **arguments),
            version if rival == PABAL else "",
            events=events,
            missing=missing,
        )

    entries = [
        entry(queued_case(keys), rival, PER_EVENT, "queued", keys=keys)
        for keys in ((1, 1_000) if settings.quick else (1, 1_000, 100_000))
        for rival in (PABAL, _QUEUE, _FLOOR)
    ]
    entries += [entry(THROUGH, rival, GROWTH, "through") for rival in (PABAL, _QUEUE)]
    series = interleave([one for one in entries if settings.wants(one.rival)], settings.runs, warm_up=False)
    return Outcome(
        scenario=NAME,
        title="Memory",
        text=(
            f"{events:,} events that already exist wait for a handler: growth of resident memory per event, "
            "in a fresh process for every run. pabal keeps a lane for every key that has something waiting. "
            f"Then {events:,} events, created as they are published, go through a queue of 10,000 that is "
            "full most of the time: peak growth, including the queued events themselves."
        ),
        tables=(
            Table(
                "Memory of a queued event beyond the event itself",
                (PER_EVENT,),
                "",
                NAME,
                lower_is_better=True,
            ),
            Table(
                "Growth of memory while events pass a full queue",
                (GROWTH,),
                "",
                "memory-through",
                lower_is_better=True,
            ),
        ),
        series=tuple(series),
    )
