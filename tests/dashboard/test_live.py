"""What the server tells by itself, and that it stops when nobody listens."""

from __future__ import annotations

import asyncio

import msgspec

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.dashboard.live import Hub
from pabal.operations import operations_of
from tests.dashboard.support import Shipped


async def test_every_listener_hears_and_nothing_runs_without_one(bus: InMemoryEventBus) -> None:
    """An open page shows old figures, or a closed one goes on costing the server."""
    hub = Hub(operations_of(bus))
    first, second = hub.listen(), hub.listen()
    for stream in (first, second):
        assert (await anext(stream)).startswith(b"retry:")
        begun = await anext(stream)
        assert begun.startswith(b"event: report\ndata: ")
        assert msgspec.json.decode(begun.split(b"data: ")[1])["totals"]["dead_letters"] == 2
    await bus.publish(Shipped("p-9", 1))
    await bus.drain()
    for stream in (first, second):
        async with asyncio.timeout(20):
            while b'"head":6' not in await anext(stream):
                continue
    ticker = next(task for task in asyncio.all_tasks() if task.get_name() == "pabal-dashboard")
    await first.aclose()
    await second.aclose()
    async with asyncio.timeout(20):
        await asyncio.wait([ticker])
    assert ticker.cancelled()


async def test_trouble_with_the_storage_is_told_and_does_not_end_the_stream(bus: InMemoryEventBus) -> None:
    """The page looks healthy for ever once the disk has failed."""
    storage = bus.storage
    assert isinstance(storage, SqliteEventStorage)
    hub = Hub(operations_of(storage))
    stream = hub.listen()
    await anext(stream)
    assert (await anext(stream)).startswith(b"event: report")
    await bus.stop()
    await storage.aclose()
    async with asyncio.timeout(20):
        while not (event := await anext(stream)).startswith(b"event: trouble"):
            continue
    assert b"closed" in event
    await stream.aclose()
    storage.open()
