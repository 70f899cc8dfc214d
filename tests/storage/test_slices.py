"""A worker's slice may continue through the lanes of several keys, without any visible effect."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.ports.storage import Progress
from tests.bus.support import Recorder, statistics_of
from tests.loop_iterations import count_loop_iterations
from tests.storage.events import Tick

WARM = 64


async def warm_up(bus: InMemoryEventBus) -> None:
    """Let slices grow: the first ones hold one or two deliveries, until the handler has proved quick."""
    await bus.publish_batch([Tick(f"warm-{n}") for n in range(WARM)])
    await bus.drain(60)


async def test_finished_deliveries_are_saved_while_a_later_key_of_the_slice_waits(
    storage: SqliteEventStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 4. Otherwise a crash would repeat events handled long before, and figures would lag."""
    gate = asyncio.Event()
    entered = asyncio.Event()
    saved: Recorder[int] = Recorder()
    save = storage.save_progress

    async def record_save(changes: list[Progress]) -> Any:
        lost = await save(changes)
        for change in changes:
            saved.add(change.watermark)
        return lost

    monkeypatch.setattr(storage, "save_progress", record_save)

    async def handle(event: Tick) -> None:
        if event.symbol == "slow":
            entered.set()
            await gate.wait()

    async with InMemoryEventBus(storage, worker_count=1) as bus:
        bus.subscribe(Tick, handle, name="s")
        await warm_up(bus)
        await bus.publish_batch([Tick("A"), Tick("B"), Tick("C"), Tick("slow"), Tick("D")])
        await entered.wait()
        await saved.until(lambda marks: WARM + 3 in marks)
        assert statistics_of(bus, "s")["handled"] == WARM + 3
        gate.set()
        await bus.drain(60)
        assert statistics_of(bus, "s")["handled"] == WARM + 5


async def test_other_workers_take_over_the_rest_of_a_slice_blocked_by_one_key(
    storage: SqliteEventStorage,
) -> None:
    """Promise 13. Otherwise the worker that waits would keep the rest of its slice from the others."""
    gate = asyncio.Event()
    done: Recorder[str] = Recorder()

    async def handle(event: Tick) -> None:
        if event.symbol == "slow":
            await gate.wait()
        done.add(event.symbol)

    async with InMemoryEventBus(storage, worker_count=2) as bus:
        bus.subscribe(Tick, handle, name="s")
        await warm_up(bus)
        others = [f"key-{n}" for n in range(50)]
        await bus.publish_batch([Tick(symbol) for symbol in [*others[:3], "slow", *others[3:]]])
        await done.until(lambda symbols: len(symbols) == WARM + 50)
        assert sorted(list(done)[WARM:]) == sorted(others)
        gate.set()
        await bus.drain(60)
        assert done[-1] == "slow"


async def test_a_failure_in_the_middle_of_a_slice_parks_only_its_own_event(
    storage: SqliteEventStorage,
) -> None:
    """Promise 26. Otherwise the dead letter would be of another event, or a neighbour be handled twice."""
    seen: list[str] = []

    async def handle(event: Tick) -> None:
        seen.append(event.symbol)
        if event.symbol == "key-7":
            raise ValueError("no")

    async with InMemoryEventBus(storage, worker_count=1) as bus:
        bus.subscribe(Tick, handle, name="s", retry_count=0)
        await warm_up(bus)
        seen.clear()
        await bus.publish_batch([Tick(f"key-{n}") for n in range(20)])
        await bus.drain(60)
        [letter] = await bus.dead_letters.list()
        assert letter.event.symbol == "key-7"
    assert seen == [f"key-{n}" for n in range(20)]
    [record] = await storage.list_subscriptions()
    assert (record.watermark, record.parked) == (WARM + 20, 1)


async def test_blocking_handlers_yield_to_the_event_loop_after_every_delivery(
    storage: SqliteEventStorage,
) -> None:
    """Promise 44. Long first slices in each partition delayed heartbeats for most of a lease."""
    handled_in: list[int] = []

    async def handle(event: Tick) -> None:
        time.sleep(0.002)  # noqa: ASYNC251
        handled_in.append(turns.count)

    async with count_loop_iterations() as turns, InMemoryEventBus(storage, worker_count=2) as bus:
        bus.subscribe(Tick, handle, name="s")
        await bus.publish_batch([Tick(f"key-{n % 5}", n) for n in range(40)])
        await bus.drain(60)
    assert len(handled_in) == 40
    assert max(Counter(handled_in).values()) == 2  # one per worker
