"""A lagging subscription reads from disk, is bounded in memory, and no key delays another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.delivery import consumer as consumer_module
from pabal.delivery import feed, pages, spilling
from pabal.ports.storage import Page
from pabal.storage.sqlite import reader
from tests.brokers.events import until
from tests.storage.events import Recorder, Tick, ticks


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers so small that a few hundred events overflow them."""
    for module in (pages, feed):
        monkeypatch.setattr(module, "BUFFER_HIGH", 64)
    for module in (consumer_module, feed, spilling):
        monkeypatch.setattr(module, "BUFFER_LOW", 32)
    monkeypatch.setattr(feed, "BUFFER_LIVE", 64)
    monkeypatch.setattr(spilling, "SPILL_KEEP", 4)
    monkeypatch.setattr(feed, "_PAGE", 16)


async def test_a_blocked_subscription_keeps_a_bounded_number_of_events_in_memory(
    storage: SqliteEventStorage,
) -> None:
    """Unhandled events are in the log; if they were kept in memory as well, a lag of days would fill it."""
    gate = asyncio.Event()
    seen = Recorder()

    async def slow(event: Tick) -> None:
        await gate.wait()
        await seen.handle(event)

    async with InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, slow, name="slow")
        for start in range(0, 2000, 100):
            await bus.publish_batch(ticks(100, first=start))
        in_memory = sum(len(lane.items) for lane in bus._engine.consumers["slow"].all_lanes())
        assert in_memory <= 64 + 16
        gate.set()
        await bus.drain(timeout=20)
    assert seen.numbers == list(range(2000))


def of_many_keys(first: int, stop: int) -> list[Tick]:
    return [tick for number in range(first, stop) for tick in ticks(1, f"key-{number}", first=number)]


async def test_a_live_subscription_buffers_more_commits_than_it_would_read_ahead(
    storage: SqliteEventStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a few large batches would all be read back from disk, while the handlers are idle."""
    monkeypatch.setattr(feed, "BUFFER_LIVE", 640)
    gate = asyncio.Event()
    reads: list[int] = []

    async def slow(event: Tick) -> None:
        await gate.wait()

    async def read_page(after: int, **options: Any) -> Page:
        reads.append(after)
        return await original_read_page(after, **options)

    original_read_page = storage.read_page
    monkeypatch.setattr(storage, "read_page", read_page)
    async with InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, slow, name="slow")
        consumer = bus._engine.consumers["slow"]
        await until(lambda: consumer.live)
        reads.clear()
        await bus.publish_batch(of_many_keys(0, 600))
        await bus.publish_batch(of_many_keys(600, 620))
        assert (consumer.live, consumer.queued) == (True, 620)
        await bus.publish_batch(of_many_keys(620, 720))
        assert (consumer.live, consumer.queued) == (False, 640)
        assert reads == []
        gate.set()
        await bus.drain(timeout=20)
    assert min(reads) == 640


async def test_a_blocked_key_with_a_long_queue_never_blocks_other_keys(storage: SqliteEventStorage) -> None:
    """Promise 14 beyond the buffer: if one key filled the buffer, it would have no room for others."""
    gate = asyncio.Event()
    blocked, others = Recorder(), Recorder()

    async def handle(event: Tick) -> None:
        if event.symbol == "blocked":
            await gate.wait()
            await blocked.handle(event)
        else:
            await others.handle(event)

    async with InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, handle, name="s")
        for start in range(0, 600, 20):
            await bus.publish_batch(
                [*ticks(15, "blocked", first=start), *ticks(5, f"free-{start % 3}", first=start)]
            )
        await others.reaches(150)
        assert blocked.numbers == []
        gate.set()
        await bus.drain(timeout=20)
    assert blocked.numbers == [start + n for start in range(0, 600, 20) for n in range(15)]


async def test_a_backlog_is_delivered_in_order_while_new_events_arrive(storage: SqliteEventStorage) -> None:
    """In the change from reading the log to live events, one could be lost, repeated or out of order."""
    await storage.store_events(ticks(500))
    seen = Recorder()
    async with InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, seen, name="behind", start="beginning")
        for number in range(501, 1001):
            await bus.publish(Tick("KRW-BTC", number))
        await bus.drain(timeout=20)
    assert seen.numbers == list(range(1, 1001))


async def test_the_cost_of_publishing_does_not_grow_with_the_queued_keys(
    storage: SqliteEventStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 18. With thousands of keys waiting, checking all of them at every commit dominates its cost."""
    gate = asyncio.Event()
    scans = 0

    async def slow(event: Tick) -> None:
        await gate.wait()

    async with InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, slow, name="slow")
        consumer = bus._engine.consumers["slow"]
        for first in range(0, 200, 50):
            await bus.publish_batch(of_many_keys(first, first + 50))
        await until(lambda: not consumer.live and consumer.queued >= 32)  # 64, or what was read by then
        every_lane = type(consumer).all_lanes

        def all_lanes(self: Any) -> Any:
            nonlocal scans
            scans += self is consumer
            return every_lane(self)

        monkeypatch.setattr(type(consumer), "all_lanes", all_lanes)
        for number in range(200, 230):
            await bus.publish(*ticks(1, f"key-{number}", first=number))
        assert scans <= 1
        gate.set()
        await bus.drain(timeout=20)


async def test_large_events_are_read_and_routed_in_small_pages(
    storage: SqliteEventStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a gigabyte would be read at once, and decoding it would block the event loop."""
    monkeypatch.setattr(reader, "PAGE_BYTES", 4000)
    monkeypatch.setattr(feed, "_PAGE_BYTES", 1000)
    await storage.store_events([Tick("KRW-BTC", n, "x" * 420) for n in range(30)])
    page = await storage.read_page(0, limit=1000)
    assert (len(page.rows), page.upto) == (9, 9)
    assert len(await storage.get_unprocessed_events(limit=100)) == 30
    routed: list[int] = []
    route = feed.Feed._route

    def record_route(self: Any, after: int, part: Page) -> bool:
        routed.append(len(part.rows))
        return route(self, after, part)

    monkeypatch.setattr(feed.Feed, "_route", record_route)
    seen = Recorder()
    async with InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, seen, name="late", start="beginning")
        await bus.drain(timeout=20)
    assert seen.numbers == list(range(30))
    assert (sum(routed), max(routed)) == (30, 2)
