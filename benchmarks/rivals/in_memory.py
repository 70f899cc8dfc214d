"""Rivals in memory: pabal, bare minimal implementations (floors), and other in-process buses."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.events import OrderPlaced, counting_function, counting_handler
from benchmarks.harness import expect_handled
from benchmarks.model import PABAL
from pabal import InMemoryEventBus

QUEUE_SIZE = 10_000
"""pabal's default limit; bounded floors get the same."""


class Work(NamedTuple):
    """The task of every rival: publish all events, and call every handler with each."""

    events: Sequence[OrderPlaced]
    handlers: int


Measure = Callable[[Work], Awaitable[float]]
"""Returns the seconds from the first publish until the last handler has finished."""


class Rival(NamedTuple):
    """A rival: its name, its distribution, and how to measure it."""

    name: str
    measure: Measure
    distribution: str | None = None
    share: float = 1.0
    """The share of the events for a slow rival, so that a run takes only minutes; figures are per second."""
    note: str = ""


async def pabal_bus(work: Work) -> float:
    bus = InMemoryEventBus()
    counts = []
    for number in range(work.handlers):
        handle, count = counting_handler()
        counts.append(count)
        bus.subscribe(OrderPlaced, handle, name=f"handler-{number}")
    await bus.start()
    start = time.perf_counter()
    publish = bus.publish
    for event in work.events:
        await publish(event)
    await bus.drain()
    seconds = time.perf_counter() - start
    await bus.stop()
    expect_handled(PABAL, sum(count() for count in counts), len(work.events) * work.handlers)
    return seconds


def pabal_batches(size: int) -> Measure:
    """Return a measurement of pabal fed by ``publish_batch``."""

    async def measure(work: Work) -> float:
        bus = InMemoryEventBus()
        handle, count = counting_handler()
        bus.subscribe(OrderPlaced, handle, name="handler")
        batches = [work.events[at : at + size] for at in range(0, len(work.events), size)]
        await bus.start()
        start = time.perf_counter()
        for batch in batches:
            await bus.publish_batch(batch)
        await bus.drain()
        seconds = time.perf_counter() - start
        await bus.stop()
        expect_handled(PABAL, count(), len(work.events))
        return seconds

    return measure


async def await_in_a_loop(work: Work) -> float:
    made = [counting_handler() for _ in range(work.handlers)]
    handlers = [handle for handle, _ in made]
    start = time.perf_counter()
    for event in work.events:
        for handle in handlers:
            await handle(event)
    return time.perf_counter() - start


async def deque_worker(work: Work) -> float:
    """One worker, one deque, one wake-up future: the minimal cost of handing over asynchronously."""
    loop = asyncio.get_running_loop()
    made = [counting_handler() for _ in range(work.handlers)]
    handlers = [handle for handle, _ in made]
    waiting: deque[OrderPlaced] = deque()
    wake: asyncio.Future[None] | None = None
    done = False

    async def worker() -> None:
        nonlocal wake
        take = waiting.popleft
        while True:
            while waiting:
                event = take()
                for handle in handlers:
                    await handle(event)
            if done:
                return
            wake = loop.create_future()
            await wake
            wake = None

    task = asyncio.create_task(worker())
    await asyncio.sleep(0)
    append = waiting.append
    start = time.perf_counter()
    for event in work.events:
        append(event)
        if wake is not None and not wake.done():
            wake.set_result(None)
        if len(waiting) >= QUEUE_SIZE:
            await asyncio.sleep(0)
    done = True
    if wake is not None and not wake.done():
        wake.set_result(None)
    await task
    seconds = time.perf_counter() - start
    expect_handled("deque", sum(count() for _, count in made), len(work.events) * work.handlers)
    return seconds


def asyncio_queue(size: int) -> Measure:
    """Return a measurement of ``asyncio.Queue`` with four workers; ``size`` 0 is unbounded, without await."""

    async def measure(work: Work) -> float:
        queue: asyncio.Queue[OrderPlaced] = asyncio.Queue(size)
        made = [counting_handler() for _ in range(work.handlers)]
        handlers = [handle for handle, _ in made]

        async def worker() -> None:
            while True:
                event = await queue.get()
                for handle in handlers:
                    await handle(event)
                queue.task_done()

        workers = [asyncio.create_task(worker()) for _ in range(4)]
        await asyncio.sleep(0)
        start = time.perf_counter()
        if size:
            for event in work.events:
                await queue.put(event)
        else:
            for event in work.events:
                queue.put_nowait(event)
        await queue.join()
        seconds = time.perf_counter() - start
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        expect_handled("asyncio.Queue", sum(c() for _, c in made), len(work.events) * work.handlers)
        return seconds

    return measure


async def task_per_event(work: Work) -> float:
    made = [counting_handler() for _ in range(work.handlers)]
    handlers = [handle for handle, _ in made]
    running: set[asyncio.Task[None]] = set()

    async def handle_all(event: OrderPlaced) -> None:
        for handle in handlers:
            await handle(event)

    start = time.perf_counter()
    for event in work.events:
        task = asyncio.create_task(handle_all(event))
        running.add(task)
        task.add_done_callback(running.discard)
        if len(running) >= QUEUE_SIZE:
            await asyncio.sleep(0)
    while running:
        await asyncio.wait(running)
    seconds = time.perf_counter() - start
    expect_handled("a task per event", sum(c() for _, c in made), len(work.events) * work.handlers)
    return seconds


async def pyee_emitter(work: Work) -> float:
    emitter = importlib.import_module("pyee.asyncio").AsyncIOEventEmitter()
    made = [counting_handler() for _ in range(work.handlers)]
    for handle, _ in made:
        emitter.on("order-placed", handle)
    start = time.perf_counter()
    for number, event in enumerate(work.events):
        emitter.emit("order-placed", event)
        # pyee creates a task per event: let them run before there are too many.
        if number % 100 == 99:
            await asyncio.sleep(0)
    await emitter.wait_for_complete()
    seconds = time.perf_counter() - start
    expect_handled("pyee", sum(count() for _, count in made), len(work.events) * work.handlers)
    return seconds


async def blinker_signal(work: Work) -> float:
    signal = importlib.import_module("blinker").Signal()
    made = [counting_handler() for _ in range(work.handlers)]
    for handle, _ in made:
        signal.connect(handle)
    start = time.perf_counter()
    for event in work.events:
        await signal.send_async(event)
    seconds = time.perf_counter() - start
    expect_handled("blinker", sum(count() for _, count in made), len(work.events) * work.handlers)
    return seconds


def browser_use_bus(module: str, *, options: dict[str, Any] | None = None) -> Measure:
    """Return a measurement of bubus or its successor abxbus, which need their own event classes."""

    async def measure(work: Work) -> float:
        library = importlib.import_module(module)
        fields = {"order_id": str, "symbol": str, "side": str, "quantity": str, "price": str, "sequence": int}
        base = library.BaseEvent[None]
        placed: Any = type(
            "BenchmarkOrderPlaced", (base,), {"__module__": __name__, "__annotations__": fields}
        )
        bus = library.EventBus(**(options or {}))
        made = [counting_handler() for _ in range(work.handlers)]
        for handle, _ in made:
            bus.on(placed, handle)
        events = [
            placed(
                order_id=e.order_id,
                symbol=e.symbol,
                side=e.side,
                quantity="0.5",
                price="1",
                sequence=e.sequence,
            )
            for e in work.events
        ]
        emit = bus.emit if hasattr(bus, "emit") else bus.dispatch
        start = time.perf_counter()
        # They keep at most 50 events at once.
        for at in range(0, len(events), 50):
            for event in [emit(event) for event in events[at : at + 50]]:
                await event
        await bus.wait_until_idle()
        seconds = time.perf_counter() - start
        await (bus.stop() if hasattr(bus, "stop") else bus.destroy())
        expect_handled(module, sum(count() for _, count in made), len(work.events) * work.handlers)
        return seconds

    return measure


async def nautilus_bus(work: Work) -> float:
    component = importlib.import_module("nautilus_trader.common.component")
    identifiers = importlib.import_module("nautilus_trader.model.identifiers")
    bus = component.MessageBus(trader_id=identifiers.TraderId("BENCH-001"), clock=component.LiveClock())
    made = [counting_function() for _ in range(work.handlers)]
    for handle, _ in made:
        bus.subscribe("events.order.placed", handle)
    publish = bus.publish
    start = time.perf_counter()
    for event in work.events:
        publish("events.order.placed", event)
    seconds = time.perf_counter() - start
    expect_handled("nautilus_trader", sum(count() for _, count in made), len(work.events) * work.handlers)
    return seconds


RIVALS = (
    Rival(PABAL, pabal_bus, "pabal"),
    Rival("asyncio.Queue, 4 workers", asyncio_queue(QUEUE_SIZE), note="bounded like pabal"),
    Rival("deque, 1 worker", deque_worker, note="no keys, no retries: a floor"),
    Rival("await in a loop", await_in_a_loop, note="no queue at all: a floor"),
)
"""Measured in every case."""

MORE_RIVALS = (
    Rival("asyncio.Queue, unbounded", asyncio_queue(0), note="4 workers, put_nowait"),
    Rival("a task per event", task_per_event),
    Rival("nautilus_trader", nautilus_bus, "nautilus_trader", note="calls plain functions at once"),
    Rival("blinker", blinker_signal, "blinker", note="awaits the handlers at once"),
    Rival("pyee", pyee_emitter, "pyee", 0.5, note="a task per event"),
    Rival("abxbus", browser_use_bus("abxbus", options={"max_history_drop": True}), "abxbus", 0.02),
    Rival("bubus", browser_use_bus("bubus"), "bubus", 0.01),
)
"""Measured with one key only, because they have no concept of keys."""
