"""A bus whose start, stop or block is cancelled halfway, or that is used again afterwards."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from pabal import InMemoryEventBus
from pabal.errors import BusNotRunningError, DrainTimeoutError
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import Backend, Recorder, numbers, run_in_thread, spin_loop


async def test_a_block_cancelled_while_it_drains_still_stops_the_bus(backend: Backend) -> None:
    """The workers would keep running unnoticed, and the subscriptions would stay held."""
    bus = backend.make_bus()
    begun, go_on = asyncio.Event(), asyncio.Event()

    @bus.on(NoteTaken, name="slow")
    async def slow(event: NoteTaken) -> None:
        begun.set()
        await go_on.wait()

    async def block() -> None:
        async with bus:
            await bus.publish(NoteTaken(1))

    task = asyncio.create_task(block())
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not bus.is_running


async def test_start_completes_a_cancelled_stop_first(backend: Backend) -> None:
    """Otherwise the old workers and feed would run beside the new ones, and handle each event twice."""
    bus = await backend.start_bus(worker_count=2)
    seen: Recorder[Moved] = Recorder()
    begun, go_on = asyncio.Event(), asyncio.Event()

    @bus.on(Moved, name="board")
    async def move(event: Moved) -> None:
        if event.n == 0:
            begun.set()
            await go_on.wait()
        seen.add(event)

    await bus.publish(Moved("rook", 0))
    await begun.wait()
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    go_on.set()
    await bus.start()
    assert bus.is_running
    await bus.publish_batch([Moved("king", n) for n in range(1, 6)])
    await bus.drain(30)
    assert [n for n in numbers(seen) if n] == [1, 2, 3, 4, 5]
    statistics = bus.get_statistics()
    assert (statistics["worker_count"], statistics["queue_size"]) == (2, 0)


async def test_start_waits_for_handlers_that_outlived_the_stop(backend: Backend) -> None:
    """Starting beside them, the bus would handle one event twice at once, and its counts would be wrong."""
    bus = await backend.start_bus()
    begun, cleaned_up = asyncio.Event(), asyncio.Event()
    running: list[str] = []
    together: list[str] = []

    @bus.on(Moved, name="board")
    async def move(event: Moved) -> None:
        together.extend(running)
        running.append(event.piece)
        try:
            if not begun.is_set():
                begun.set()
                await asyncio.Event().wait()
        finally:
            await cleaned_up.wait()
            running.remove(event.piece)

    await bus.publish(Moved("rook"))
    await begun.wait()
    await bus.stop(timeout=0)
    starting = asyncio.create_task(bus.start())
    await asyncio.sleep(0)
    assert not starting.done()
    cleaned_up.set()
    await starting
    await bus.publish(Moved("rook"))
    await bus.drain(30)
    assert together == []
    assert bus.get_statistics()["queue_size"] == 0


async def test_drain_still_waits_after_a_handler_outlived_a_stop(backend: Backend) -> None:
    """With a count that is one too low, drain would return before the last event is handled."""
    bus = await backend.start_bus()
    begun, cleaned_up, last = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @bus.on(Moved, name="board")
    async def move(event: Moved) -> None:
        if event.n == 1:
            await last.wait()
        elif not begun.is_set():
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                await cleaned_up.wait()

    await bus.publish(Moved("rook", 0))
    await begun.wait()
    await bus.stop(timeout=0)
    cleaned_up.set()
    await bus.start()
    await bus.publish(Moved("king", 1))
    with pytest.raises(DrainTimeoutError):
        await bus.drain(0.01)
    last.set()
    await bus.drain(30)


async def test_publish_threadsafe_during_a_stop_is_rejected(backend: Backend) -> None:
    """It would be published into a stopped bus: a receipt for an event that is never handled."""
    bus = await backend.start_bus()
    reached, go_on = threading.Event(), threading.Event()

    inbox: Any = bus._inbox
    entries = inbox._entries

    class Slow(type(entries)):  # type: ignore[misc]
        def append(self, entry: Any) -> None:
            reached.set()
            go_on.wait(30)
            super().append(entry)

    inbox._entries = Slow()
    publishing = asyncio.create_task(run_in_thread(lambda: bus.publish_threadsafe(NoteTaken(1))))
    await run_in_thread(lambda: reached.wait(30))
    await bus.stop()
    go_on.set()
    future = await publishing
    with pytest.raises(BusNotRunningError):
        await asyncio.wrap_future(future)


def test_an_event_rejected_because_its_loop_closed_is_not_published_later() -> None:
    """Its publisher got an error and may publish it again: it would be handled twice."""
    bus = InMemoryEventBus()
    seen: list[int] = []

    async def note(event: NoteTaken) -> None:
        seen.append(event.n)

    bus.subscribe(NoteTaken, note)
    asyncio.run(bus.start())
    with pytest.raises(BusNotRunningError):
        bus.publish_threadsafe(NoteTaken(1))

    async def restart() -> None:
        await bus.stop()
        async with bus:
            await bus.publish(NoteTaken(2))

    asyncio.run(restart())
    assert seen == [2]


async def test_a_subscription_made_during_a_stop_is_opened_by_the_next_start(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could stay held by the stopped bus: every other bus on the storage would stand by for ever."""
    bus = await stored.start_bus()
    handled: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        handled.add(event)

    storage: Any = bus.storage
    release = storage.release_subscription

    async def release_and_subscribe(name: str, epoch: int) -> None:
        await release(name, epoch)
        bus.subscribe(Moved, handle, name="late", start="beginning")

    bus.subscribe(NoteTaken, lambda event: None, name="early")
    await bus.publish(Moved("rook", 1))
    await bus.drain(20)
    with monkeypatch.context() as patched:
        patched.setattr(storage, "release_subscription", release_and_subscribe)
        await bus.stop()
    other = InMemoryEventBus(storage)
    other.subscribe(Moved, handle, name="late", start="beginning")
    await other.start()
    await other.drain(20)
    assert numbers(handled) == [1]
    await other.stop()


async def test_a_subscription_resumed_during_a_stop_is_not_taken_again(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stay held by the stopped bus: every other bus on the storage would stand by for ever."""
    bus = await stored.start_bus()
    handled: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        handled.add(event)

    bus.subscribe(Moved, handle, name="sub", start="beginning")
    await bus.drain(20)
    await bus.subscriptions.pause("sub")
    await bus.publish(Moved("rook", 1))
    storage: Any = bus.storage
    release, read_controls = storage.release_subscription, storage.read_controls
    released, resumed = asyncio.Event(), asyncio.Event()

    async def release_and_let_read(name: str, epoch: int) -> None:
        await release(name, epoch)
        released.set()
        await spin_loop()  # what must not happen: that it is taken again

    async def read_late(names: list[str]) -> Any:
        resumed.set()
        await released.wait()
        return await read_controls(names)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "release_subscription", release_and_let_read)
        patched.setattr(storage, "read_controls", read_late)
        resuming = asyncio.create_task(bus.subscriptions.resume("sub"))
        await resumed.wait()
        await bus.stop()
        await asyncio.wait([resuming])
    other = InMemoryEventBus(storage)
    other.subscribe(Moved, handle, name="sub")
    await other.start()
    await other.drain(20)
    assert numbers(handled) == [1]
    await other.stop()


async def test_a_bus_stops_in_order_although_all_tasks_were_cancelled(stored: Backend) -> None:
    """``asyncio.run`` does so at its end: the next bus would stand by until the old leases expire."""
    bus = await stored.start_bus()
    handled: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        handled.add(event)

    async def hold() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await bus.stop()

    bus.subscribe(Moved, handle, name="sub", start="beginning")
    holding = asyncio.create_task(hold())
    await bus.publish(Moved("rook", 1))
    await handled.reach(1)  # its progress is still to be saved
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.wait([holding])
    assert not bus.is_running
    other = InMemoryEventBus(bus.storage)
    other.subscribe(Moved, handle, name="sub")
    await other.start()
    await other.publish(Moved("rook", 2))
    await other.drain(20)
    assert numbers(handled) == [1, 2]
    await other.stop()


async def test_starting_a_bus_whose_tasks_were_all_cancelled_makes_it_deliver_again(local: Backend) -> None:
    """It would take events and deliver none, and starting it, the obvious remedy, would do nothing."""
    bus = await local.start_bus()
    handled: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        handled.add(event)

    bus.subscribe(Moved, handle, name="sub")
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert bus.health().status == "failing"
    await bus.start()
    await bus.publish(Moved("rook", 2))
    await bus.drain(60)
    assert numbers(handled) == [1, 2]
    assert bus.health().status == "ok"
