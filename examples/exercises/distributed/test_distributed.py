"""The tests of the exercise. They test the solution, or the module named by EXERCISE.

EXERCISE=mine python -m pytest examples/exercises/distributed
"""

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.brokers.server import Server

from examples.small_bus.step1_interface import Event, OrderPlaced

_module = importlib.import_module(f"examples.exercises.distributed.{os.environ.get('EXERCISE', 'solution')}")


@pytest.fixture
def url() -> Iterator[str]:
    """A real server for each test, which ends with it."""
    server = Server()
    server.start()
    yield server.url
    server.remove()


class Recorder:
    """A handler that records its events, and lets a test wait for them."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self._changed = asyncio.Condition()

    async def __call__(self, event: Event) -> None:
        async with self._changed:
            self.keys.append(event.key)
            self._changed.notify_all()

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: len(self.keys) >= count)


@asynccontextmanager
async def publishing(url: str) -> AsyncIterator[Any]:
    """Run a process that only publishes; the bus is closed even if the test fails."""
    bus = _module.RedisBus(url, "shop", "shop-1", [OrderPlaced])
    try:
        yield bus
    finally:
        await bus.stop()


@asynccontextmanager
async def running(url: str, group: str, consumer: str, handler: Any, **options: Any) -> AsyncIterator[Any]:
    """Run one process: a bus with one handler, for the duration of the block."""
    bus = _module.RedisBus(url, group, consumer, [OrderPlaced], **options)
    bus.subscribe(OrderPlaced, handler, name="handler")
    await bus.start()
    try:
        yield bus
    finally:
        try:
            await asyncio.wait_for(bus.stop(), 20)
        except TimeoutError:
            pytest.fail("stop() does not end: a loop cancelled while the client reads may still be running")


async def test_task_1_an_event_published_by_one_process_is_handled_by_another(url: str) -> None:
    ledger = Recorder()
    async with publishing(url) as shop, running(url, "ledger", "ledger-1", ledger):
        await shop.publish(OrderPlaced("o-1", 5))
        await ledger.reach(1)
    assert ledger.keys == ["o-1"]


async def test_task_1_an_event_published_before_the_group_existed_is_delivered(url: str) -> None:
    ledger = Recorder()
    async with publishing(url) as shop:
        await shop.publish(OrderPlaced("o-1", 5))
    async with running(url, "ledger", "ledger-1", ledger):
        await ledger.reach(1)
    assert ledger.keys == ["o-1"]


async def test_task_2_processes_of_a_group_share_the_events_and_each_group_gets_all(url: str) -> None:
    shared, alone = Recorder(), Recorder()
    async with (
        running(url, "ledger", "ledger-1", shared) as bus,
        running(url, "ledger", "ledger-2", shared),
        running(url, "report", "report-1", alone),
    ):
        for number in range(50):
            await bus.publish(OrderPlaced(f"o-{number}", 1))
        await shared.reach(50)
        await alone.reach(50)
    expected = sorted(f"o-{number}" for number in range(50))
    assert sorted(shared.keys) == sorted(alone.keys) == expected


async def test_task_3_an_event_a_dead_process_was_handling_is_taken_over(url: str) -> None:
    started = asyncio.Event()

    async def hangs(event: Event) -> None:
        started.set()
        await asyncio.Event().wait()

    async with running(url, "ledger", "ledger-1", hangs) as bus:
        await bus.publish(OrderPlaced("o-1", 5))
        await asyncio.wait_for(started.wait(), 20)
    survivor = Recorder()
    async with running(url, "ledger", "ledger-2", survivor, claim_after=0.05):
        await survivor.reach(1)
    assert survivor.keys == ["o-1"]


async def test_task_4_a_failing_handler_is_retried_and_other_events_continue(url: str) -> None:
    attempts = Recorder()
    done = Recorder()

    async def fails_once(event: Event) -> None:
        await attempts(event)
        if attempts.keys.count("o-1") == 1 and event.key == "o-1":
            raise ConnectionError("the ledger is down")
        await done(event)

    async with running(url, "ledger", "ledger-1", fails_once, claim_after=0.05) as bus:
        await bus.publish(OrderPlaced("o-1", 5))
        await bus.publish(OrderPlaced("o-2", 5))
        await done.reach(2)
    assert sorted(done.keys) == ["o-1", "o-2"]
    assert attempts.keys.count("o-1") == 2
