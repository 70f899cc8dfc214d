"""Closed event loops, and workers and handlers that are cancelled."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.brokers.events import Moved, Recorder, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus
from tests.bus.test_closed_loop import CutShortError, run_and_cancel, run_and_drop

SOON = 5.0
"""Seconds: far more than the tested action takes, but less than the lease that would also end it."""


@pytest.fixture
def collected_garbage() -> Iterator[None]:
    """Collect the remains of a closed loop before the next test; pytest keeps some until this one ends."""
    yield
    gc.collect()


@pytest.mark.usefixtures("collected_garbage")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("stops", [0, 2])
@pytest.mark.parametrize("run", [run_and_cancel, run_and_drop])
def test_a_bus_whose_loop_was_closed_can_be_stopped_and_started(
    shared_server: Server, namespace: str, run: Any, stops: int
) -> None:
    """``asyncio.run`` closes the loop after an exception; ``stop()`` would raise "Event loop is closed".

    Without a stop, ``start()`` would take the bus for running, and publishes would raise WrongLoopError.
    """
    recorder = Recorder()
    bus = make_bus(shared_server, namespace, recorder, partitions=2)

    async def cut_short() -> None:
        await bus.start()
        await bus.publish(Moved("a", 1))
        raise CutShortError

    async def go_on() -> None:
        for _ in range(stops):
            await bus.stop()
        async with bus:
            await bus.publish(Moved("a", 2))
            await bus.drain(timeout=30)

    run(cut_short)
    asyncio.run(go_on())
    assert set(recorder.numbers) == {1, 2}
    gc.collect()  # nothing can close the sockets of a closed loop


async def test_workers_of_a_lost_partition_end_when_they_are_cancelled(
    own_server: Server, namespace: str
) -> None:
    """``asyncio.run`` would hang on a worker that ignores its cancellation."""
    begun = asyncio.Event()

    async def hang(event: Moved) -> None:
        begun.set()
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    bus = make_bus(own_server, namespace, hang, partitions=1, lease=0.3)
    await bus.start()
    await bus.publish(Moved("a", 1))
    await begun.wait()
    own_server.kill()
    await until(lambda: not bus.partitions)
    tasks = asyncio.all_tasks() - before
    for task in tasks:
        task.cancel()
    _, left = await asyncio.wait(tasks, timeout=SOON)
    await bus.stop(timeout=0)
    assert not left


@pytest.mark.parametrize("timeout", [None, 60.0], ids=["without time limit", "with time limit"])
async def test_a_handler_that_raises_cancelled_error_in_a_lost_partition_costs_no_worker(
    own_server: Server, namespace: str, timeout: float | None
) -> None:
    """Workers must go on with other partitions; if the last one ended, nothing more would be handled."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    handled: list[int] = []

    async def handle(event: Moved) -> None:
        if event.number == 1 and not go_on.is_set():
            begun.set()
            await go_on.wait()
            raise asyncio.CancelledError  # as if something it awaited was cancelled
        handled.append(event.number)

    bus = make_bus(own_server, namespace, partitions=1, lease=0.3, worker_count=1)
    bus.subscribe(Moved, handle, name="sub", timeout=timeout)
    async with bus:
        await bus.publish(Moved("a", 1))
        await begun.wait()
        own_server.kill()
        await until(lambda: not bus.partitions)
        go_on.set()
        own_server.start()
        await until(lambda: bool(bus.partitions))
        await bus.publish(Moved("b", 2))
        await bus.drain(timeout=30)
        assert set(handled) == {1, 2}
        assert bus.health().status == "ok"
