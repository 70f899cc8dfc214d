"""The loop that a bus belongs to, and calls from other loops and threads. Promise 21."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pabal import InMemoryEventBus
from pabal.errors import WrongLoopError
from tests.bus.samples import Moved
from tests.bus.support import LIMIT, Backend, Recorder, run_in_thread


def run_in_another_loop(work: Callable[[], Any]) -> BaseException | None:
    """Run a call in a loop of another thread, and return what it raised."""
    raised: list[BaseException | None] = []

    async def attempt() -> None:
        try:
            result = work()
            if asyncio.iscoroutine(result):
                await result
            raised.append(None)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=lambda: asyncio.run(attempt()))
    thread.start()
    thread.join(LIMIT)
    return raised[0]


async def test_calls_from_another_loop_raise_and_name_publish_threadsafe(backend: Backend) -> None:
    """Using the engine from a second thread would silently corrupt it."""
    bus = await backend.start_bus()
    seen: Recorder[int] = Recorder()

    async def note(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, note)
    await bus.publish(Moved("rook", 1))
    await bus.publish(Moved("rook", 2))
    for work in (
        lambda: bus.publish(Moved("rook", 3)),
        lambda: bus.publish_batch([Moved("rook", 3)]),
        lambda: bus.publish(Moved("rook", 3), delay=1),
        lambda: bus.drain(),
        lambda: bus.wait_for(Moved),
        lambda: bus.subscribe(Moved, note, name="late"),
        lambda: bus.unsubscribe("sub-1"),
        lambda: bus.use(_call_next),
        lambda: bus.start(),
        lambda: bus.stop(),
    ):
        error = await run_in_thread(functools.partial(run_in_another_loop, work))
        assert isinstance(error, WrongLoopError)
        assert "publish_threadsafe" in str(error)
    await bus.drain(60)
    assert seen == [1, 2]


async def _call_next(event: Any, context: Any, call_next: Any) -> None:
    await call_next()


async def test_a_bus_keeps_running_when_another_loop_tries_to_stop_it(backend: Backend) -> None:
    """A loop that cannot wait for the workers would leave the bus half stopped for ever."""
    bus = await backend.start_bus()
    seen: Recorder[int] = Recorder()

    async def note(event: Moved) -> None:
        seen.add(event.n)

    async def enter_block() -> None:
        async with bus:
            raise AssertionError("never entered")

    bus.subscribe(Moved, note)
    for work in (lambda: bus.stop(timeout=0), enter_block):
        assert isinstance(await run_in_thread(functools.partial(run_in_another_loop, work)), WrongLoopError)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    assert bus.health().status == "ok"
    await bus.stop(timeout=5)
    assert seen == [1]


def test_publish_from_a_second_loop_in_the_same_thread_raises(tmp_path: Any) -> None:
    """The thread is the same, but the bus's loop does not run meanwhile: the event would stay unhandled."""
    owner, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    bus = InMemoryEventBus()
    seen: list[int] = []

    @bus.on(Moved)
    async def note(event: Moved) -> None:
        seen.append(event.n)

    async def begin() -> None:
        await bus.start()
        await bus.publish(Moved("rook", 1))
        await bus.drain(60)

    owner.run_until_complete(begin())
    try:
        with pytest.raises(WrongLoopError, match="publish_threadsafe"):
            other.run_until_complete(bus.publish(Moved("rook", 2)))
    finally:
        owner.run_until_complete(bus.stop())
        owner.close()
        other.close()
    assert seen == [1]


def test_a_stopped_bus_may_start_again_in_another_loop() -> None:
    """A bus belongs to the loop that started it only for as long as it runs."""
    bus = InMemoryEventBus()
    seen: list[int] = []

    @bus.on(Moved)
    async def note(event: Moved) -> None:
        seen.append(event.n)

    async def once(n: int) -> None:
        async with bus:
            await bus.publish(Moved("rook", n))

    for n in range(3):
        asyncio.run(once(n))
    assert seen == [0, 1, 2]
