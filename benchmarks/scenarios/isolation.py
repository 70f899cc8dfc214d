"""How much does a slow subscription, or one that always fails, slow the others down?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.events import OrderPlaced, make_events
from benchmarks.harness import Settings, expect_handled, fresh_folder, installed, interleave, run
from benchmarks.model import Entry, Metrics, Outcome, Table, percentile
from benchmarks.rivals.latency import pace
from pabal import EventBusFactory, InMemoryEventBus

NAME = "isolation"
P99, P50, RATE = "p99 ms", "p50 ms", "events/s"
ALONE = "alone"
FAILING = "beside one that always fails"
SLOW = "beside one that takes a second for each event"
MEMORY = "in memory, 1,000 events/s"
DISK = "on disk, full, 100 publishers"
_PER_SECOND = 1_000
_PUBLISHERS = 100


async def _fail(event: OrderPlaced) -> None:
    raise ValueError("always")


async def _handle_slowly(event: OrderPlaced) -> None:
    await asyncio.sleep(1)


def _add_neighbour(bus: InMemoryEventBus, neighbour: str) -> None:
    if neighbour == FAILING:
        bus.subscribe(OrderPlaced, _fail, name="failing", retry_count=0)
    elif neighbour == SLOW:
        bus.subscribe(OrderPlaced, _handle_slowly, name="slow", ordering=lambda event: "one at a time")


async def latency(events: Sequence[OrderPlaced], neighbour: str) -> Metrics:
    """Publish at a fixed rate, and return the latencies of the healthy subscription."""
    now = time.perf_counter_ns
    started = [0] * len(events)

    async def healthy(event: OrderPlaced) -> None:
        started[event.sequence] = now()

    bus = EventBusFactory.create_in_memory_event_bus()
    bus.subscribe(OrderPlaced, healthy, name="healthy")
    _add_neighbour(bus, neighbour)
    async with bus:
        first_due_at = await pace(events, _PER_SECOND, bus.publish)
    expect_handled("the healthy subscription", sum(at > 0 for at in started), len(events))
    interval = 1e9 / _PER_SECOND
    waits = sorted((at - first_due_at - number * interval) / 1e6 for number, at in enumerate(started))
    return {P99: percentile(waits, 0.99), P50: percentile(waits, 0.5)}


async def throughput(settings: Settings, events: Sequence[OrderPlaced], neighbour: str) -> Metrics:
    """Publish from many publishers; return the rate until the healthy subscription has handled all."""
    left = len(events)
    done = asyncio.Event()

    async def healthy(event: OrderPlaced) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    async def publish(mine: Sequence[OrderPlaced]) -> None:
        for event in mine:
            await bus.publish(event)

    with fresh_folder(settings) as folder:
        bus, storage = EventBusFactory.create_complete_event_system(folder / "log.db")
        bus.subscribe(OrderPlaced, healthy, name="healthy")
        _add_neighbour(bus, neighbour)
        await bus.start()
        start = time.perf_counter()
        await asyncio.gather(*[publish(events[number::_PUBLISHERS]) for number in range(_PUBLISHERS)])
        await done.wait()
        seconds = time.perf_counter() - start
        await bus.stop(timeout=0)
        await storage.aclose()
    return {RATE: len(events) / seconds}


def measure(settings: Settings) -> Outcome:
    """Measure the healthy subscription alone and beside each neighbour, in turn."""
    paced = make_events(settings.size(5 * _PER_SECOND, _PER_SECOND // 2), 1_000)
    stored = make_events(settings.size(20_000, 3_000), 1_000)

    def entry(case: str, neighbour: str, metrics: tuple[str, ...], measured: Callable[[], Metrics]) -> Entry:
        on_disk = case == DISK
        return Entry(
            case,
            neighbour,
            metrics,
            measured,
            installed("pabal") or "",
            "full" if on_disk else "memory",
            len(stored if on_disk else paced),
        )

    def in_memory(neighbour: str) -> Metrics:
        return run(latency(paced, neighbour))

    def on_disk(neighbour: str) -> Metrics:
        return run(throughput(settings, stored, neighbour))

    entries = [entry(MEMORY, one, (P99, P50), partial(in_memory, one)) for one in (ALONE, FAILING)]
    entries += [entry(DISK, one, (RATE,), partial(on_disk, one)) for one in (ALONE, SLOW, FAILING)]
    return Outcome(
        scenario=NAME,
        title="Isolation: a healthy subscription beside a sick one",
        text=(
            "Publishing, and the deliveries of a healthy subscription, alone and beside a second one "
            "that takes a second for each event, or fails at each and parks it as a dead letter. On disk the "
            "clock stops when everything is committed and the healthy one has handled it. The neighbour's "
            "own cost (a traceback and a dead letter for each failure) falls on the same processors."
        ),
        tables=(
            Table("Events per second of publishing, beside a sick subscription", (RATE,), ALONE, NAME),
            Table(
                "p99 latency beside a subscription that fails", (P99, P50), ALONE, "", lower_is_better=True
            ),
        ),
        series=tuple(interleave([one for one in entries if settings.wants(one.rival)], settings.runs)),
    )
