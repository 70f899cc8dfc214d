"""Life cycle: when a bus accepts calls, and what it leaves running. Promises 7 (in short) and 9."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import pytest

from pabal import BusNotRunningError, InMemoryEventBus, SqliteEventStorage
from pabal.testing import VirtualClock
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import LIMIT, ONE_ATTEMPT, Backend, Recorder, numbers, spin_loop
from tests.descriptors import open_targets

CALLS: dict[str, Any] = {
    "publish": lambda bus: bus.publish(Moved("rook")),
    "publish_batch": lambda bus: bus.publish_batch([Moved("rook")]),
    "publish later": lambda bus: bus.publish(Moved("rook"), delay=1),
    "drain": lambda bus: bus.drain(),
    "wait_for": lambda bus: bus.wait_for(Moved),
    "resume": lambda bus: bus.resume("book"),
}


@pytest.mark.parametrize("call", CALLS)
async def test_calls_before_the_start_raise_a_typed_error(backend: Backend, call: str) -> None:
    """An event swallowed by a bus that does not run yet would be lost without a trace."""
    bus = backend.make_bus()
    with pytest.raises(BusNotRunningError, match=r"stopped.*async with bus") as caught:
        await CALLS[call](bus)
    assert caught.value.state == "stopped"
    assert not bus.is_running


@pytest.mark.parametrize("call", CALLS)
async def test_calls_after_the_stop_raise_a_typed_error(backend: Backend, call: str) -> None:
    """Promise 9. An event accepted after the stop would never be handled."""
    bus = await backend.start_bus()

    async def note(event: Moved) -> None: ...

    bus.subscribe(Moved, note, name="book")
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    await bus.stop()
    with pytest.raises(BusNotRunningError):
        await CALLS[call](bus)


@pytest.mark.parametrize("call", CALLS)
async def test_calls_during_the_stop_raise_a_typed_error(backend: Backend, call: str) -> None:
    """Promise 9. A stop may wait for a handler until its timeout; nothing new is accepted meanwhile."""
    bus = await backend.start_bus()
    entered: Recorder[int] = Recorder()
    release = asyncio.Event()

    async def hold(event: Moved) -> None:
        entered.add(event.n)
        await release.wait()

    bus.subscribe(Moved, hold, name="book")
    await bus.publish(Moved("rook", 1))
    await entered.reach(1)
    stopping = asyncio.create_task(bus.stop(timeout=60))
    await spin_loop()
    assert not stopping.done()
    with pytest.raises(BusNotRunningError):
        await CALLS[call](bus)
    release.set()
    await stopping
    assert entered == [1]


async def test_an_event_published_during_a_stop_is_handled_or_rejected(backend: Backend) -> None:
    """Promise 9. Of publishes during a stop, acknowledged ones are handled now or after the next start."""
    bus = await backend.start_bus()
    handled: Recorder[Moved] = Recorder()

    async def note(event: Moved) -> None:
        await asyncio.sleep(0)
        handled.add(event)

    bus.subscribe(Moved, note, name="book")
    acknowledged: list[str] = []
    rejected = 0
    running = asyncio.Event()

    async def publish(publisher: int) -> None:
        nonlocal rejected
        for n in range(10_000):
            event = Moved(f"piece-{publisher}", n)
            try:
                await bus.publish(event)
            except BusNotRunningError:
                rejected += 1
                return
            acknowledged.append(event.event_id)
            if len(acknowledged) == 200:
                running.set()
            if n % 10 == 0:
                await asyncio.sleep(0)

    publishers = [asyncio.create_task(publish(n)) for n in range(5)]
    await running.wait()
    await bus.stop(timeout=10)
    await asyncio.gather(*publishers)
    assert rejected == 5
    if backend.stored:
        bus = await backend.reopen(bus)
        bus.subscribe(Moved, note, name="book")
        await bus.start()
        await bus.drain(20)
    assert sorted(event.event_id for event in handled) == sorted(acknowledged)


async def test_start_and_stop_are_idempotent(backend: Backend) -> None:
    """Frameworks often call start and stop more than once: a second set of workers would run."""
    bus = backend.make_bus()
    await bus.stop()
    await bus.start()
    await bus.start()
    assert bus.get_statistics()["worker_count"] == 4
    await bus.publish(Moved("rook"))
    await bus.stop()
    await bus.stop()
    assert not bus.is_running


async def test_concurrent_starts_and_stops_run_one_after_another(backend: Backend) -> None:
    """Two starts, or a start and a stop, at the same time must not leave half a bus."""
    bus = backend.make_bus()
    await asyncio.gather(bus.start(), bus.start())
    assert bus.get_statistics()["worker_count"] == 4
    await asyncio.gather(bus.stop(), bus.stop(), bus.start())
    assert bus.is_running
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    await bus.stop()


async def test_the_context_manager_drains_before_it_stops(backend: Backend) -> None:
    """``async with`` is for scripts: when the block ends, the work is done."""
    bus = backend.make_bus()
    seen: Recorder[int] = Recorder()

    @bus.on(Moved)
    async def note(event: Moved) -> None:
        await asyncio.sleep(0)
        seen.add(event.n)

    async with bus as entered:
        assert entered is bus
        for n in range(100):
            await bus.publish(Moved(f"piece-{n % 7}", n))
    assert sorted(seen) == list(range(100))
    assert not bus.is_running


async def test_an_error_in_the_block_stops_the_bus_without_draining(backend: Backend) -> None:
    """The user's error must come through at once, not after a drain that may never end."""
    bus = backend.make_bus()
    release = asyncio.Event()

    @bus.on(Moved)
    async def hang(event: Moved) -> None:
        await release.wait()

    async def broken() -> None:
        async with bus:
            await bus.publish(Moved("rook"))
            asyncio.get_running_loop().call_later(0.05, release.set)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await broken()
    assert not bus.is_running


async def test_the_block_of_a_bus_with_a_log_does_not_wait_for_distant_retries(
    stored: Backend, clock: VirtualClock
) -> None:
    """Retries and the events behind them are stored; a script must not wait an hour for them."""
    bus = stored.make_bus(clock=clock)
    calls: Recorder[int] = Recorder()

    async def fail(event: Moved) -> None:
        calls.add(event.n)
        raise ValueError("in an hour")

    from pabal import RetryPolicy

    bus.subscribe(Moved, fail, name="book", retry=RetryPolicy(base_delay=3600, max_delay=3600))
    async with bus:
        await bus.publish_batch([Moved("rook", 1), Moved("rook", 2), NoteTaken(3)])
    assert calls == [1]
    bus = await stored.reopen(bus, clock=clock)
    seen: Recorder[int] = Recorder()

    async def note(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, note, name="book")
    await bus.start()
    assert seen == []
    await clock.advance(10)
    assert seen == [], "the first is due in an hour, and the second waits for it"


async def test_a_restarted_bus_continues_with_every_key(backend: Backend) -> None:
    """The same bus object, stopped in the middle of its work and started again, must not forget a key."""
    bus = await backend.start_bus(worker_count=1)
    entered = asyncio.Event()
    release = asyncio.Event()
    seen: Recorder[Any] = Recorder()

    async def handle(event: Any) -> None:
        entered.set()
        await release.wait()
        seen.add(event)

    bus.subscribe((Moved, NoteTaken), handle, name="book")
    await bus.publish_batch([*(Moved("rook", n) for n in range(3)), *(NoteTaken(n) for n in range(10, 13))])
    await entered.wait()
    await bus.stop(timeout=0.05)
    release.set()
    await bus.start()
    await bus.publish_batch([Moved("rook", 3), NoteTaken(13)])
    await bus.drain(60)
    expected = [0, 1, 2, 3, 10, 11, 12, 13] if backend.stored else [3, 13]
    assert sorted(numbers(seen)) == expected


async def test_handlers_cancelled_by_a_stop_use_up_no_attempts(
    stored: Backend,
) -> None:
    """A stop is not a failure of the handler: three restarts must not use up an event's attempts."""
    bus = stored.make_bus()
    entered: Recorder[int] = Recorder()
    for cycle in range(4):
        bus.subscribe(Moved, _hanging(entered), name="book", retry=ONE_ATTEMPT)
        await bus.start()
        if cycle == 0:
            await bus.publish(Moved("rook", 1))
        await entered.reach(cycle + 1)
        await bus.stop(timeout=0.02)
        bus = await stored.reopen(bus)
    seen: Recorder[int] = Recorder()

    async def note(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, note, name="book", retry=ONE_ATTEMPT)
    await bus.start()
    await bus.drain(60)
    assert seen == [1]
    assert await bus.dead_letters.list() == []


def _hanging(entered: Recorder[int]) -> Any:
    async def hang(event: Moved) -> None:
        entered.add(event.n)
        await asyncio.Event().wait()

    return hang


def descriptors() -> set[str]:
    """Return the targets of the process's open file descriptors, except the loop's sockets and pipes."""
    return {name for name in open_targets() if name.startswith("/") and not name.startswith("/dev/")}


async def test_nothing_is_left_running_after_stop(backend: Backend, tmp_path: Path) -> None:
    """Promise 7. A task, thread, descriptor or file left by each start would end a long-lived program."""
    gc.collect()
    tasks, threads, open_files = asyncio.all_tasks(), set(threading.enumerate()), descriptors()
    failing = asyncio.Event()

    async def fail(event: NoteTaken) -> None:
        failing.set()
        raise ValueError("in an hour")

    for _ in range(10):
        bus = backend.make_bus(worker_count=3)
        seen: Recorder[int] = Recorder()
        bus.subscribe(Moved, lambda event, seen=seen: seen.add(event.n), name="thread")
        bus.subscribe(NoteTaken, fail, name="failing", timeout=3600, retry_count=5)
        await bus.start()
        waiting = asyncio.create_task(bus.wait_for(NoteTaken, where=lambda event: False))
        await asyncio.gather(*(bus.publish(Moved(f"piece-{n}", n)) for n in range(20)))
        await bus.publish(Moved("later"), delay=3600)
        await bus.publish(NoteTaken(1))
        await bus.drain(10, retries=False)
        await bus.stop(timeout=0.2)
        assert (await asyncio.gather(waiting, return_exceptions=True))[0].__class__ is BusNotRunningError
        if isinstance(bus.storage, SqliteEventStorage):
            await bus.storage.aclose()
        assert len(seen) == 20
    assert asyncio.all_tasks() == tasks
    loop_threads = {"asyncio_", "ThreadPoolExecutor"}
    left = [
        t
        for t in set(threading.enumerate()) - threads
        if not any(t.name.startswith(prefix) for prefix in loop_threads)
    ]
    for thread in left:
        thread.join(LIMIT)
    assert not [thread for thread in left if thread.is_alive()]
    gc.collect()
    assert descriptors() == open_files
    assert not list(tmp_path.glob("*-inflight-*"))


async def test_many_starts_and_stops_under_traffic_lose_nothing(stored: Backend) -> None:
    """Promise 7 in short: 30 cycles, each of which stops in the middle of work and then continues it."""
    handled: dict[str, int] = {}
    acknowledged: list[str] = []
    for cycle in range(30):
        bus = stored.make_bus(worker_count=2)

        async def handle(event: Moved) -> None:
            await asyncio.sleep(0)
            handled[event.event_id] = handled.get(event.event_id, 0) + 1

        bus.subscribe(Moved, handle, name="book")
        await bus.start()
        receipts = await asyncio.gather(*(bus.publish(Moved(f"piece-{n % 3}", cycle)) for n in range(20)))
        acknowledged += [receipt.event_id for receipt in receipts]
        await bus.stop(timeout=5)
        if isinstance(bus.storage, SqliteEventStorage):
            await bus.storage.aclose()
    bus = stored.make_bus()

    async def handle_rest(event: Moved) -> None:
        handled[event.event_id] = handled.get(event.event_id, 0) + 1

    bus.subscribe(Moved, handle_rest, name="book")
    async with bus:
        pass
    assert sorted(handled) == sorted(acknowledged)
    assert set(handled.values()) == {1}, "a graceful stop delivers nothing twice"


async def test_a_start_that_fails_leaves_a_bus_that_can_be_started_later(tmp_path: Path) -> None:
    """A file that is unusable for a moment must not make the bus useless, or leave workers behind."""
    storage = SqliteEventStorage(tmp_path / "events.db")
    bus = InMemoryEventBus(storage)
    tasks = asyncio.all_tasks()
    original = storage.head

    async def broken() -> int:
        raise OSError("disk on fire")

    storage.head = broken  # type: ignore[method-assign]
    with pytest.raises(OSError, match="fire"):
        await bus.start()
    assert not bus.is_running
    assert asyncio.all_tasks() == tasks
    storage.head = original  # type: ignore[method-assign]
    async with bus:
        assert await bus.publish(Moved("rook"))
    await storage.aclose()
