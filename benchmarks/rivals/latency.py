"""Rivals whose latency is compared; the same loop feeds each at a fixed rate."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

from benchmarks.events import Handler, OrderPlaced
from benchmarks.model import PABAL
from pabal import InMemoryEventBus

Publish = Callable[[OrderPlaced], Awaitable[Any] | None]
"""Hands over one event; its result, if not None, is awaited."""
Open = Callable[[Handler], AbstractAsyncContextManager[Publish]]


class Rival(NamedTuple):
    """A rival, and a context manager that runs it with a handler and waits for the handler at the end."""

    name: str
    open: Open
    distribution: str | None = None


async def pace(events: Sequence[OrderPlaced], rate: float, publish: Publish) -> int:
    """Publish at a fixed rate, however slow the receiver (open loop); return when the first was due, in ns.

    The n-th event is due at start + n / rate. Until then the loop is yielded to instead of sleeping, because
    the loop's timers have a resolution of a millisecond. A publisher that is late does not wait, but still
    yields now and then.
    """
    now = time.perf_counter_ns
    interval = 1e9 / rate
    start = now() + 1_000_000
    for number, event in enumerate(events):
        due = start + int(number * interval)
        if number % 16 == 15:
            await asyncio.sleep(0)
        while now() < due:  # noqa: ASYNC110 - it waits for a time, more exactly than a timer can
            await asyncio.sleep(0)
        handed_over = publish(event)
        if handed_over is not None:
            await handed_over
    return start


@asynccontextmanager
async def pabal_bus(handler: Handler) -> AsyncIterator[Publish]:
    bus = InMemoryEventBus()
    bus.subscribe(OrderPlaced, handler, name="handler")
    async with bus:
        yield bus.publish


@asynccontextmanager
async def asyncio_queue(handler: Handler) -> AsyncIterator[Publish]:
    queue: asyncio.Queue[OrderPlaced] = asyncio.Queue(10_000)

    async def worker() -> None:
        while True:
            event = await queue.get()
            await handler(event)
            queue.task_done()

    workers = [asyncio.create_task(worker()) for _ in range(4)]
    await asyncio.sleep(0)
    yield queue.put
    await queue.join()
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


@asynccontextmanager
async def deque_worker(handler: Handler) -> AsyncIterator[Publish]:
    loop = asyncio.get_running_loop()
    waiting: deque[OrderPlaced] = deque()
    wake = loop.create_future()
    done = False

    async def worker() -> None:
        nonlocal wake
        while waiting or not done:
            while waiting:
                await handler(waiting.popleft())
            if not done:
                await wake
                wake = loop.create_future()

    def publish(event: OrderPlaced) -> None:
        waiting.append(event)
        if not wake.done():
            wake.set_result(None)

    task = asyncio.create_task(worker())
    await asyncio.sleep(0)
    yield publish
    done = True
    if not wake.done():
        wake.set_result(None)
    await task


@asynccontextmanager
async def pyee_emitter(handler: Handler) -> AsyncIterator[Publish]:
    emitter = importlib.import_module("pyee.asyncio").AsyncIOEventEmitter()
    emitter.on("order-placed", handler)

    def publish(event: OrderPlaced) -> None:
        emitter.emit("order-placed", event)

    yield publish
    await emitter.wait_for_complete()


RIVALS = (
    Rival(PABAL, pabal_bus, "pabal"),
    Rival("asyncio.Queue, 4 workers", asyncio_queue),
    Rival("deque, 1 worker", deque_worker),
    Rival("pyee", pyee_emitter, "pyee"),
)
