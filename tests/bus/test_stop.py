"""``stop``: it keeps its time limit, and no delivery in progress is lost or repeated. Promise 8."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter

import pytest

from pabal import BaseEventBus, BusNotRunningError
from pabal.errors import InsideHandlerError
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import LIMIT, Backend, GatedHandler, Recorder, numbers, spin_loop, statistics_of


async def test_stop_without_a_log_handles_the_queued_events(memory: Backend) -> None:
    """These events have no later chance, so the stop uses its time for them."""
    bus = await memory.start_bus()
    seen: Recorder[int] = Recorder()

    async def note(event: Moved) -> None:
        await asyncio.sleep(0)
        seen.add(event.n)

    bus.subscribe(Moved, note)
    await bus.publish_batch([Moved(f"piece-{n % 3}", n) for n in range(500)])
    await bus.stop(timeout=10)
    assert sorted(seen) == list(range(500))


async def test_stop_without_a_log_warns_about_unfinished_deliveries(
    memory: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Deliveries would be lost silently; a warning says how many."""
    bus = await memory.start_bus(worker_count=1)

    async def hang(event: Moved) -> None:
        await asyncio.Event().wait()

    bus.subscribe(Moved, hang)
    await bus.publish_batch([Moved("rook", n) for n in range(3)])
    await bus.stop(timeout=0.05)
    assert "3 deliveries were unfinished" in caplog.text


async def test_stop_with_a_thousand_deliveries_in_flight_keeps_its_time_limit(stored: Backend) -> None:
    """Promise 8, with a limit of 1 s. Finished work is saved, unfinished work is repeated, nothing is handled
    early.
    """
    count = 1000
    limit = 1.0
    bus = await stored.start_bus(worker_count=count)
    entered: Recorder[int] = Recorder()
    finished: list[int] = []
    release = asyncio.Event()

    async def handle(event: Moved) -> None:
        entered.add(event.n)
        if event.n % 2:
            await release.wait()
        else:
            await asyncio.Event().wait()
        finished.append(event.n)

    bus.subscribe(Moved, handle, name="book")
    await bus.publish_batch([Moved(f"piece-{n}", n) for n in range(count)])
    await entered.reach(count)
    assert statistics_of(bus, "book")["in_flight"] == count
    blocked = asyncio.create_task(_publish_until_rejected(bus))
    await spin_loop()
    asyncio.get_running_loop().call_later(0.1, release.set)
    started = time.perf_counter()
    await bus.stop(timeout=limit)
    assert time.perf_counter() - started <= limit + 5.0  # the promise: 0.5, on an idle machine
    assert sorted(finished) == list(range(1, count, 2))
    assert await asyncio.wait_for(blocked, LIMIT)
    await bus.stop(timeout=limit)  # a second stop has nothing to do

    bus = await stored.reopen(bus)
    redelivered: Recorder[int] = Recorder()

    async def note(event: Moved) -> None:
        redelivered.add(event.n)

    bus.subscribe(Moved, note, name="book", where=lambda event: event.piece != "late")
    await bus.start()
    await bus.drain(20)
    assert sorted(redelivered) == list(range(0, count, 2)), "exactly the unfinished ones"


async def _publish_until_rejected(bus: BaseEventBus) -> bool:
    try:
        while True:
            await bus.publish(Moved("late", -1))
            await asyncio.sleep(0.01)
    except BusNotRunningError:
        return True


async def test_stop_rejects_publishers_that_wait_for_room(memory: Backend) -> None:
    """Promise 8. Publishers get an error, and the stop does not wait for them."""
    bus = await memory.start_bus(worker_count=1, max_queue_size=1)

    async def hang(event: Moved) -> None:
        await asyncio.Event().wait()

    bus.subscribe(Moved, hang)
    await bus.publish(Moved("rook", 0))
    publishers = [asyncio.create_task(bus.publish(Moved("rook", n))) for n in range(1, 6)]
    await spin_loop()
    await asyncio.wait_for(bus.stop(timeout=0.1), LIMIT)
    results = await asyncio.gather(*publishers, return_exceptions=True)
    assert {type(result) for result in results} == {BusNotRunningError}


async def test_stop_does_not_wait_for_a_thread_that_never_ends(backend: Backend) -> None:
    """Promise 8. A thread cannot be cancelled; the bus must stop nevertheless, and leave its event
    unfinished.
    """
    bus = await backend.start_bus()
    entered: Recorder[int] = Recorder()
    release = threading.Event()

    def block(event: Moved) -> None:
        entered.add(event.n)
        release.wait(LIMIT)

    bus.subscribe(Moved, block, name="book")
    await bus.publish(Moved("rook", 1))
    await entered.reach(1)
    await asyncio.wait_for(bus.stop(timeout=0.1), LIMIT)
    release.set()
    if backend.stored:
        bus = await backend.reopen(bus)
        seen: Recorder[int] = Recorder()

        async def note(event: Moved) -> None:
            seen.add(event.n)

        bus.subscribe(Moved, note, name="book")
        await bus.start()
        await bus.drain(60)
        assert seen == [1]


async def test_a_handler_that_ignores_cancellation_does_not_block_the_stop(backend: Backend) -> None:
    """Promise 8. Some code swallows CancelledError; the time limit must still be kept."""
    bus = await backend.start_bus()
    entered = asyncio.Event()
    end = asyncio.Event()

    async def ignore_cancellation(event: Moved) -> None:
        entered.set()
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    bus.subscribe(Moved, ignore_cancellation)
    await bus.publish(Moved("rook"))
    await entered.wait()
    await asyncio.wait_for(bus.stop(timeout=0.1), LIMIT)
    end.set()
    await spin_loop()


async def test_stop_waits_for_a_running_handler_and_saves_its_progress(stored: Backend) -> None:
    """A handler that ends within the limit has done its work; delivering it again would repeat that."""
    bus = await stored.start_bus()
    entered = asyncio.Event()
    release = asyncio.Event()
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        entered.set()
        await release.wait()
        seen.add(event.n)

    bus.subscribe(Moved, handle, name="book")
    await bus.publish_batch([Moved("rook", 1), Moved("rook", 2)])
    await entered.wait()
    stopping = asyncio.create_task(bus.stop(timeout=10))
    await spin_loop()
    release.set()
    await stopping
    assert seen == [1]
    bus = await stored.reopen(bus)
    bus.subscribe(Moved, handle, name="book")
    async with bus:
        pass
    assert seen == [1, 2]


async def test_events_committed_during_a_stop_do_not_overtake_waiting_ones(stored: Backend) -> None:
    """Another process may store events while the stop waits for a handler; its worker must not take them."""
    bus = await stored.start_bus()
    entered = asyncio.Event()
    release = asyncio.Event()
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        entered.set()
        await release.wait()
        seen.add(event.n)

    bus.subscribe(Moved, handle, name="book")
    await bus.publish_batch([Moved("rook", 1), Moved("rook", 2)])
    await entered.wait()
    stopping = asyncio.create_task(bus.stop(timeout=10))
    await spin_loop()
    assert bus.storage is not None
    await bus.storage.store_event(Moved("rook", 3))
    await spin_loop()
    release.set()
    await stopping
    bus = await stored.reopen(bus)
    bus.subscribe(Moved, handle, name="book")
    async with bus:
        pass
    assert seen == [1, 2, 3]


async def test_a_task_started_by_a_handler_may_stop_the_bus_after_the_handler_returns(
    backend: Backend,
) -> None:
    """The error inside a handler recommends this; but a task inherits its handler's event."""
    bus = await backend.start_bus()
    returned: Recorder[int] = Recorder()
    stopping: list[asyncio.Task[None]] = []

    async def stop() -> None:
        await returned.reach(1)
        await spin_loop()
        await bus.stop()

    async def handle(event: Moved) -> None:
        stopping.append(asyncio.create_task(stop()))
        await asyncio.sleep(0)
        returned.add(event.n)

    bus.subscribe(Moved, handle)
    await bus.publish(Moved("rook", 1))
    await returned.reach(1)
    await asyncio.wait_for(stopping[0], LIMIT)
    assert not bus.is_running


@pytest.mark.parametrize("leaving", ["stop", "unsubscribe"])
async def test_events_finished_behind_thousands_of_waiting_ones_are_saved(
    stored: Backend, leaving: str
) -> None:
    """Promise 8. A blocked key has more events waiting than a regular save lists. The last save must list
    them all, or events of other keys that have finished are handled twice after every restart.
    """
    bus = await stored.start_bus(worker_count=2)
    seen: Recorder[str] = Recorder()

    async def handle(event: Moved) -> None:
        if event.piece == "blocked":
            await asyncio.Event().wait()
        seen.add(event.piece)

    subscription = bus.subscribe(Moved, handle, name="book")
    await bus.drain(60)  # from now on it takes events as they are committed, and holds more of them
    await bus.publish_batch([Moved("blocked", n) for n in range(5000)])
    await bus.publish_batch([Moved(f"piece-{n}", n) for n in range(3)])
    await seen.reach(3)
    await spin_loop()
    if leaving == "unsubscribe":
        bus.unsubscribe(subscription)
    await bus.stop(timeout=0)
    bus = await stored.reopen(bus)

    async def handle_again(event: Moved) -> None:
        seen.add(event.piece)

    bus.subscribe(Moved, handle_again, name="book")
    async with bus:
        await bus.drain(60)
    assert Counter(seen) == {"blocked": 5000, "piece-0": 1, "piece-1": 1, "piece-2": 1}


async def test_a_subscription_unsubscribed_during_the_stop_keeps_what_it_has_finished(
    stored: Backend,
) -> None:
    """Promise 8. What it had finished would be handled again after the next start."""
    bus = await stored.start_bus()
    handler = GatedHandler()
    handler.gate.clear()
    subscription = bus.subscribe(Moved, handler, name="book")
    await bus.publish(Moved("rook", 1))
    await handler.entered.reach(1)
    stopping = asyncio.create_task(bus.stop())
    await spin_loop()
    bus.unsubscribe(subscription)
    handler.gate.set()
    await stopping
    bus = await stored.reopen(bus)
    bus.subscribe(Moved, handler, name="book")
    async with bus:
        await bus.drain(60)
    assert numbers(handler.handled) == [1]


async def test_stop_inside_a_handler_raises_instead_of_deadlocking(backend: Backend) -> None:
    """The stop would wait for the handler that waits for the stop."""
    bus = await backend.start_bus()
    errors: Recorder[str] = Recorder()

    async def stop(event: Moved) -> None:
        for attempt in (bus.stop(), asyncio.wait_for(bus.stop(), LIMIT)):
            try:
                await attempt
            except InsideHandlerError as error:
                errors.add(str(error))

    bus.subscribe(Moved, stop)
    await bus.publish(Moved("rook"))
    await errors.reach(2)
    await bus.drain(60)
    assert bus.is_running
    assert "inside a handler" in errors[0]


async def test_a_handler_cancelled_by_a_stop_is_not_called_again_for_an_ended_subscription(
    memory: Backend,
) -> None:
    """Another of its handlers that ends only now would go on with the event that the first one gave up."""
    bus = await memory.start_bus(worker_count=2)
    calls: Recorder[int] = Recorder()

    async def end_late(event: NoteTaken) -> None:
        if not event.n:
            return
        calls.add(event.n)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if event.n == 1:
                raise
            await spin_loop()

    subscription = bus.subscribe(NoteTaken, end_late)
    await bus.publish_batch([NoteTaken(0) for _ in range(20)])  # from now on, a worker takes several
    await bus.drain(60)
    await bus.publish_batch([NoteTaken(1), NoteTaken(2)])
    await calls.reach(2)
    bus.unsubscribe(subscription)
    await bus.stop(timeout=0)
    assert calls == [1, 2]


async def test_a_stop_with_an_invalid_timeout_leaves_the_bus_running(backend: Backend) -> None:
    """It would raise after closing the bus to publishers: the bus would neither run nor be stopped."""
    bus = await backend.start_bus()
    with pytest.raises(TypeError):
        await bus.stop(None)  # type: ignore[arg-type]
    assert bus.is_running
    await bus.publish(Moved("rook", 1))
