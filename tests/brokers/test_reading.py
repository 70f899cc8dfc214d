"""Reading from the log: after a trim, and events that are large."""

from __future__ import annotations

import asyncio

import pytest

from pabal.brokers.redis import pages
from tests.brokers.events import Moved, Recorder, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus


async def test_wait_for_since_a_trimmed_receipt_returns_the_next_event(
    shared_server: Server, namespace: str
) -> None:
    """``wait_for`` would raise an IndexError once all events are handled and trimmed."""
    async with make_bus(shared_server, namespace, Recorder(), partitions=2, keep=0) as bus:
        receipt = await bus.publish(Moved("a", 1))
        await bus.drain(timeout=30)
        assert bus._coordinator is not None
        await bus._coordinator.trim()
        waiting = asyncio.ensure_future(bus.wait_for(Moved, since=receipt, timeout=30))
        await asyncio.sleep(0)
        while not waiting.done():
            await bus.publish(Moved("b", 2))
        assert (await waiting).number == 2


async def test_large_events_are_not_buffered_without_limit(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of events of a megabyte would wait in memory for a handler slower than the publishers."""
    monkeypatch.setattr(pages, "_CACHED_BYTES", 1000)
    monkeypatch.setattr(pages, "_ENTRIES", 1)
    go, numbers = asyncio.Event(), []

    async def handle(event: Moved) -> None:
        await go.wait()
        numbers.append(event.number)

    async with make_bus(shared_server, namespace, partitions=1, lease=10.0) as bus:
        bus.subscribe(Moved, handle, name="sub")
        await until(lambda: bus.partitions == [0])
        for number in range(40):
            bus._group_engine.running[0].storage.pages.follows = True
            await bus.publish(Moved("k" * 200, number))
        [running] = bus._group_engine.running.values()
        assert running.storage.pages._bytes < 3000
        go.set()
        await bus.drain(timeout=30)
    assert numbers == list(range(40))
