"""A bus with a log whose event loop was closed before the bus was stopped: the effect is that of a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pabal import BaseEventBus, InMemoryEventBus, InMemoryEventStorage, RetryPolicy, SqliteEventStorage
from tests.bus.samples import NoteTaken
from tests.bus.support import LIMIT


class CutShortError(Exception):
    """Ends a loop in the middle of its work."""


class InterruptedHandler:
    """A handler that leaves events unfinished, in every possible way, when the loop ends."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.handled: list[int] = []
        self.begun = asyncio.Event()

    async def handle(self, event: NoteTaken) -> None:
        self.begun.set()
        if self.behaviour == "waits":
            await asyncio.Event().wait()
        if self.behaviour == "fails":
            raise ValueError("later")
        self.handled.append(event.n)


def bus_on(storage: SqliteEventStorage | InMemoryEventStorage, handler: InterruptedHandler) -> BaseEventBus:
    """Return a bus with one handler."""
    bus = InMemoryEventBus(event_storage=storage, worker_count=2)
    # More attempts than can be made while a loaded machine delays the end of the first loop.
    policy = RetryPolicy(max_attempts=1_000_000, base_delay=0.0, jitter=0.0)
    bus.subscribe(NoteTaken, handler, name="sub", retry=policy)
    return bus


def run_and_cancel(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run in a loop that cancels the remaining tasks before it closes."""
    with pytest.raises(CutShortError):
        asyncio.run(work())


def run_and_drop(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run in a loop that is closed with everything pending."""
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(CutShortError):
            loop.run_until_complete(work())
    finally:
        loop.close()


@pytest.mark.parametrize("run", [run_and_cancel, run_and_drop])
@pytest.mark.parametrize("behaviour", ["handles", "waits", "fails"])
@pytest.mark.parametrize("restarted", ["same bus", "same storage", "same file"])
def test_events_left_unfinished_by_a_closed_loop_are_delivered_after_a_restart(
    tmp_path: Path, run: Any, behaviour: str, restarted: str
) -> None:
    """After an exception had ended ``asyncio.run``, a later ``stop()`` would raise "Event loop is closed"."""
    handler = InterruptedHandler(behaviour)
    storage = SqliteEventStorage(tmp_path / "log.db")
    bus = bus_on(storage, handler)

    async def cut_short() -> None:
        await bus.start()
        await bus.publish_batch([NoteTaken(n) for n in range(5)])
        await handler.begun.wait()
        raise CutShortError

    async def continue_later() -> None:
        nonlocal bus, storage
        handler.behaviour = "handles"
        await bus.stop()
        await bus.stop()
        if restarted == "same file":
            storage.close()
            storage = SqliteEventStorage(tmp_path / "log.db")
        if restarted != "same bus":
            bus = bus_on(storage, handler)
        async with asyncio.timeout(LIMIT), bus:
            await bus.publish(NoteTaken(5))
            await bus.drain()
            assert set(handler.handled) == set(range(6))
            assert bus.get_statistics()["queue_size"] == 0
            [record] = await bus.subscriptions.list()
            assert record.watermark == 6
        storage.close()

    run(cut_short)
    asyncio.run(continue_later())


@pytest.mark.parametrize("run", [run_and_cancel, run_and_drop])
def test_a_bus_that_was_never_stopped_can_start_in_a_new_loop(tmp_path: Path, run: Any) -> None:
    """``start`` would return as if the bus ran, and every later publish would fail with the closed loop."""
    handler = InterruptedHandler("handles")
    storage = SqliteEventStorage(tmp_path / "log.db")
    bus = bus_on(storage, handler)

    async def cut_short() -> None:
        await bus.start()
        await bus.publish(NoteTaken(0))
        raise CutShortError

    async def continue_later() -> None:
        async with asyncio.timeout(LIMIT), bus:
            await bus.publish(NoteTaken(1))
        assert set(handler.handled) == {0, 1}
        storage.close()

    run(cut_short)
    asyncio.run(continue_later())


@pytest.mark.parametrize("run", [run_and_cancel, run_and_drop])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_another_bus_on_the_same_storage_takes_over_from_one_whose_loop_was_closed(
    tmp_path: Path, run: Any, kind: str
) -> None:
    """It would stand by for ever, for a bus that nothing can run any more."""
    storage = InMemoryEventStorage() if kind == "memory" else SqliteEventStorage(tmp_path / "log.db")
    handler = InterruptedHandler("waits")
    earlier = bus_on(storage, handler)

    async def cut_short() -> None:
        await earlier.start()
        await earlier.publish(NoteTaken(0))
        await handler.begun.wait()
        raise CutShortError

    async def continue_later() -> None:
        handler.behaviour = "handles"
        async with asyncio.timeout(LIMIT), bus_on(storage, handler) as bus:
            await earlier.stop()
            assert bus.health().reasons == ()
            await bus.publish(NoteTaken(1))
            await bus.drain()
        assert handler.handled == [0, 1]
        assert await bus.subscriptions.forget("sub")
        storage.close()

    run(cut_short)
    asyncio.run(continue_later())


def test_stop_and_drain_do_not_wait_for_calls_of_a_closed_loop(tmp_path: Path) -> None:
    """Calls that waited in the closed loop, as in ``drain`` or ``wait_for``, can never be woken."""
    handler = InterruptedHandler("waits")
    storage = SqliteEventStorage(tmp_path / "log.db")
    bus = bus_on(storage, handler)
    tasks: list[asyncio.Task[Any]] = []

    async def cut_short() -> None:
        await bus.start()
        await bus.publish(NoteTaken(1))
        tasks.append(asyncio.create_task(bus.drain()))
        tasks.append(asyncio.create_task(bus.wait_for(NoteTaken, where=lambda event: event.n == 7)))
        bus.publish_threadsafe(NoteTaken(2))
        await handler.begun.wait()
        raise CutShortError

    async def continue_later() -> None:
        handler.behaviour = "handles"
        async with asyncio.timeout(LIMIT):
            await bus.stop()
            async with bus:
                await bus.drain()
        assert 1 in handler.handled
        storage.close()

    run_and_drop(cut_short)
    asyncio.run(continue_later())


def test_a_bus_without_a_log_does_not_wait_for_workers_of_a_closed_loop() -> None:
    """``stop()`` would wait for its whole time limit for deliveries that no worker makes."""
    handler = InterruptedHandler("waits")
    bus = InMemoryEventBus(worker_count=1)
    bus.subscribe(NoteTaken, handler, name="sub")

    async def cut_short() -> None:
        await bus.start()
        await bus.publish_batch([NoteTaken(1), NoteTaken(2)])
        await handler.begun.wait()
        raise CutShortError

    async def continue_later() -> None:
        handler.behaviour = "handles"
        async with asyncio.timeout(LIMIT):
            await bus.stop(timeout=10 * LIMIT)
            async with bus:
                await bus.publish(NoteTaken(3))
        assert handler.handled == [3]

    run_and_drop(cut_short)
    asyncio.run(continue_later())
