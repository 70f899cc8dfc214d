"""Events that a subscription has yet to handle, but that were deleted or are no longer subscribed to."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.bus.samples import Jumped, Moved
from tests.bus.support import Recorder, numbers, statistics_of
from tests.delivery.harness import Harness

from pabal import InMemoryEventBus, NotRetryableError, RetryPolicy, SqliteEventStorage
from pabal.delivery import feed

LATER = RetryPolicy(max_attempts=3, base_delay=1000.0, jitter=0.0)


def delete(path: Path, condition: str) -> None:
    """Delete events from outside, as only another program does."""
    connection = sqlite3.connect(path, isolation_level=None)
    assert connection.execute(f"DELETE FROM events WHERE {condition}").rowcount > 0
    connection.close()


async def leave_unfinished(path: Path) -> None:
    """Leave a log whose subscription still has to handle the second of three events."""

    async def handle(event: Moved) -> None:
        if event.n == 2:
            raise ConnectionError("not yet")

    async with SqliteEventStorage(path, durability="normal") as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Moved, handle, name="mover", retry=LATER, start="beginning")
        await bus.publish_batch([Moved("a", 1), Moved("b", 2), Moved("c", 3)])


async def test_a_deleted_unfinished_event_does_not_hold_back_the_watermark(tmp_path: Path) -> None:
    """The subscription would wait for the event for ever: no trim could pass it, and no ``drain`` end."""
    path = tmp_path / "log.db"
    await leave_unfinished(path)
    delete(path, "position = 2")
    seen: Recorder[Any] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event)

    async with SqliteEventStorage(path, durability="normal") as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Moved, handle, name="mover", retry=LATER)
        await bus.publish(Moved("b", 4))
        await bus.drain(60)
        assert statistics_of(bus, "mover")["watermark"] == 4
    assert numbers(seen) == [4]


async def test_an_unfinished_event_no_longer_subscribed_to_counts_as_finished(
    tmp_path: Path,
) -> None:
    """A handler that was narrowed to other types would get an event that it cannot handle."""
    path = tmp_path / "log.db"
    await leave_unfinished(path)
    seen: Recorder[Any] = Recorder()

    async def handle(event: Jumped) -> None:
        seen.add(event)

    async with SqliteEventStorage(path, durability="normal") as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Jumped, handle, name="mover", retry=LATER)
        await bus.publish(Jumped("b", 4))
        await bus.drain(60)
        assert statistics_of(bus, "mover")["watermark"] == 4
    assert numbers(seen) == [4]


async def test_deleted_events_behind_a_dead_letter_do_not_block_their_key(tmp_path: Path) -> None:
    """Promise 25. The queue would stall, and later events of its key would wait until the next start."""
    path = tmp_path / "log.db"
    seen: Recorder[Any] = Recorder()
    broken = True

    async def handle(event: Moved) -> None:
        if broken:
            raise NotRetryableError("not yet")
        seen.add(event)

    async with SqliteEventStorage(path, durability="normal") as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Moved, handle, name="mover", on_exhausted="park_key")
        await bus.publish_batch([Moved("a", n) for n in range(1, 302)])  # more than are read back at a time
        await bus.drain(60)
        delete(path, "position BETWEEN 2 AND 300")
        broken = False
        await bus.dead_letters.retry("all")
        await seen.reach(2)
        await bus.drain(60)
        await bus.publish(Moved("a", 302))
        await seen.reach(3)
    assert numbers(seen) == [1, 301, 302]


async def test_deleted_spilled_events_do_not_block_their_key(tmp_path: Path, small_buffers: None) -> None:
    """Promise 18. The lane, and all later events of its key, would wait for rows that never come."""
    path = tmp_path / "log.db"
    gate = asyncio.Event()
    seen: Recorder[Any] = Recorder()

    async def handle(event: Moved) -> None:
        if event.piece == "busy":
            await gate.wait()
        seen.add(event)

    async with SqliteEventStorage(path, durability="normal") as storage:
        bus = InMemoryEventBus(storage, worker_count=2)
        bus.subscribe(Moved, handle, name="mover")
        async with bus:
            await bus.drain(60)
            for n in range(0, 100, 5):
                await bus.publish_batch([Moved("busy", m) for m in range(n, n + 4)])
                await bus.publish(Moved("free", n + 4))
                await seen.reach(n // 5 + 1)
            [lane] = [lane for lane in bus._engine.consumers["mover"].all_lanes() if lane.spilled is not None]
            assert lane.spilled is not None
            assert len(lane.spilled) > feed._PAGE, "it is read back in several steps"
            kept = 1 + len(lane.items)
            delete(path, f"aggregate_id = 'busy' AND position >= {lane.spilled[0]}")
            gate.set()
            await bus.drain(60)
            await bus.publish(Moved("busy", 1000))
            await bus.drain(60)
            assert statistics_of(bus, "mover")["watermark"] == 101
    assert [e.n for e in seen if e.piece == "busy"][kept:] == [1000]


async def test_a_page_that_does_not_fit_is_continued_where_it_stopped(
    harness: Harness, small_buffers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 18. Events that found no room would be skipped, and the watermark would move past them."""
    monkeypatch.setattr(feed, "_PAGE", 50)
    monkeypatch.setattr(feed, "_READ", 50)
    pieces = [f"piece-{n}" for n in range(200)]
    await harness.bus.publish_batch([Moved(piece, n) for n, piece in enumerate(pieces)])
    harness.handler.gated = pieces
    harness.handler.gate.clear()
    harness.subscribe(start="beginning")
    await harness.handler.entered.reach(1)
    await harness.clock.settle()
    assert sum(len(lane.items) for lane in harness.bus._engine.consumers["sub"].all_lanes()) < 50
    harness.handler.gate.set()
    await harness.drain()
    assert sorted(numbers(harness.handler.handled)) == list(range(200))
    assert statistics_of(harness.bus, "sub")["watermark"] == 200


async def test_a_large_read_is_dispatched_in_parts_that_yield_to_the_event_loop(
    harness: Harness, small_buffers: None
) -> None:
    """Dispatching many events in one step would keep every publisher and handler waiting."""
    await harness.publish(*range(24))
    harness.handler.gated = ["A"]
    harness.handler.gate.clear()
    harness.subscribe(start="beginning")
    consumer = harness.bus._engine.consumers["sub"]
    seen = [0]
    while seen[-1] < 24:
        await asyncio.sleep(0)
        if consumer.tracker is not None and consumer.tracker.seen != seen[-1]:
            seen.append(consumer.tracker.seen)
    assert seen == [0, 8, 16, 24]
    harness.handler.gate.set()
    await harness.drain()
    assert numbers(harness.handler.handled) == list(range(24))
