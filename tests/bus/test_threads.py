"""Threads: sync handlers, and ``publish_threadsafe``. Promise 21."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from pabal import BusNotRunningError, Receipt
from pabal.errors import InvalidEventError
from tests.bus.samples import Measured, Moved, NoteTaken
from tests.bus.support import (
    LIMIT,
    ONE_ATTEMPT,
    Backend,
    Recorder,
    by_piece,
    numbers,
    run_in_thread,
    spin_loop,
)


async def test_a_sync_handler_never_blocks_the_event_loop(backend: Backend) -> None:
    """Promise 21. While a sync handler blocks, async handlers, timers and publishers continue."""
    bus = await backend.start_bus(worker_count=4)
    release = threading.Event()
    blocked: Recorder[int] = Recorder()
    seen: Recorder[int] = Recorder()

    def block(event: NoteTaken) -> None:
        blocked.add(event.n)
        release.wait(LIMIT)

    async def note(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(NoteTaken, block)
    bus.subscribe(Moved, note)
    await bus.publish_batch([NoteTaken(0), NoteTaken(1)])
    await blocked.reach(2)
    latest = time.perf_counter()
    longest = 0.0
    for n in range(100):
        await bus.publish(Moved(f"piece-{n}", n))
        await asyncio.sleep(0)
        longest = max(longest, time.perf_counter() - latest)
        latest = time.perf_counter()
    await seen.reach(100)
    assert not release.is_set()
    assert longest < LIMIT / 4, "the loop stood still for as long as the handlers"
    release.set()
    await bus.drain(60)


async def test_sync_handlers_run_in_parallel(backend: Backend) -> None:
    """There are as many threads as workers: with a single one, a slow handler would block the others."""
    bus = await backend.start_bus(worker_count=6)
    together = threading.Barrier(6, timeout=LIMIT)
    bus.subscribe(NoteTaken, lambda event: together.wait() and None, name="barrier", retry=ONE_ATTEMPT)
    await bus.publish_batch([NoteTaken(n) for n in range(6)])
    await bus.drain(LIMIT)
    assert await bus.dead_letters.list() == []


async def test_a_start_waits_for_the_threads_of_an_earlier_run(backend: Backend) -> None:
    """A thread cannot be interrupted: the event of a sync handler must not be handled beside itself."""
    bus = await backend.start_bus()
    release, entered = threading.Event(), threading.Event()
    running: Recorder[int] = Recorder()

    def block(event: Moved) -> None:
        running.add(event.n)
        entered.set()
        release.wait(LIMIT)

    bus.subscribe(Moved, block, name="book")
    await bus.publish(Moved("rook", 1))
    await run_in_thread(lambda: entered.wait(LIMIT))
    await bus.stop(timeout=0)
    starting = asyncio.create_task(bus.start())
    try:
        await spin_loop()
        assert not starting.done()
        assert running == [1]
    finally:
        release.set()
    await asyncio.wait_for(starting, LIMIT)


async def test_a_sync_handler_that_raises_is_retried_like_any_other(backend: Backend) -> None:
    """An exception must be passed back from the thread."""
    bus = await backend.start_bus()
    calls: Recorder[str] = Recorder()

    def fail_once(event: Moved) -> None:
        calls.add(threading.current_thread().name)
        if len(calls) == 1:
            raise ValueError("from a thread")

    bus.subscribe(Moved, fail_once, retry_count=1)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert len(calls) == 2


async def test_events_published_from_many_threads_arrive_in_order_per_thread(
    backend: Backend,
) -> None:
    """Promise 21. Each thread's own order is kept; between threads there is none to keep."""
    bus = await backend.start_bus()
    seen: Recorder[Moved] = Recorder()

    async def note(event: Moved) -> None:
        seen.add(event)

    bus.subscribe(Moved, note, ordering=lambda event: "all")

    def publish(thread: int) -> list[Future[Receipt]]:
        return [bus.publish_threadsafe(Moved(f"thread-{thread}", n)) for n in range(400)]

    with ThreadPoolExecutor(8) as pool:
        futures = await asyncio.gather(
            *(asyncio.get_running_loop().run_in_executor(pool, publish, thread) for thread in range(8))
        )
    receipts = [await asyncio.wrap_future(future) for each in futures for future in each]
    await bus.drain(20)
    assert by_piece(seen) == {f"thread-{thread}": list(range(400)) for thread in range(8)}
    assert len({receipt.event_id for receipt in receipts}) == 3200
    if backend.stored:
        for thread in range(8):
            positions = [future.result().position or 0 for future in futures[thread]]
            assert positions == sorted(positions)


async def test_the_future_of_publish_threadsafe_resolves_when_the_event_is_published(stored: Backend) -> None:
    """A thread that waits for the future gets the same guarantee as a task that awaits ``publish``."""
    bus = await stored.start_bus()
    event = Moved("rook", 1)
    receipt = await run_in_thread(lambda: bus.publish_threadsafe(event).result(LIMIT))
    assert (receipt.event_id, receipt.position) == (event.event_id, 1)
    assert bus.storage is not None
    assert await bus.storage.get_event(event.event_id) == event


async def test_an_invalid_event_fails_its_own_future_and_no_other(
    backend: Backend,
) -> None:
    """Events of many threads are published together; a bad one must fail alone and keep the order."""
    bus = await backend.start_bus()
    seen: Recorder[Any] = Recorder()

    async def note(event: Any) -> None:
        seen.add(event)

    bus.subscribe(Moved, note)

    def publish() -> list[Future[Receipt]]:
        events: list[Any] = [
            Moved("rook", 0),
            Measured(float("nan")),
            Moved("rook", 1),
            object(),
            Moved("rook", 2),
        ]
        return [bus.publish_threadsafe(event) for event in events]

    futures = await run_in_thread(publish)
    await bus.drain(60)
    errors = [type(future.exception(LIMIT)).__name__ for future in futures]
    assert errors == ["NoneType", "NonFiniteNumberError", "NoneType", "UnregisteredEventError", "NoneType"]
    assert numbers(seen) == [0, 1, 2]


async def test_publish_threadsafe_works_in_the_loops_own_thread(backend: Backend) -> None:
    """Code that does not know its thread, such as a Qt slot, uses the same call everywhere."""
    bus = await backend.start_bus()
    seen: Recorder[int] = Recorder()

    async def note(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, note)
    future = bus.publish_threadsafe(Moved("rook", 1))
    await asyncio.wrap_future(future)
    await bus.drain(60)
    assert seen == [1]


async def test_drain_waits_for_events_published_from_threads(backend: Backend) -> None:
    """To the thread, its event is published; drain would return before it is handled."""
    bus = await backend.start_bus()
    seen: Recorder[int] = Recorder()

    async def on_note_taken(event: NoteTaken) -> None:
        seen.add(event.n)

    def on_moved(event: Moved) -> None:
        bus.publish_threadsafe(NoteTaken(event.n))

    bus.subscribe(Moved, on_moved)
    bus.subscribe(NoteTaken, on_note_taken)
    for n in range(30):
        await bus.publish(Moved(f"piece-{n}", n))
    await bus.drain(60)
    assert sorted(seen) == list(range(30))


async def test_an_event_published_by_a_sync_handler_carries_its_causation_id(backend: Backend) -> None:
    """Causation would be lost at every sync handler, since it runs in a thread of its own."""
    bus = await backend.start_bus()
    seen: Recorder[NoteTaken] = Recorder()

    def on_moved(event: Moved) -> None:
        bus.publish_threadsafe(NoteTaken(1)).result(LIMIT)

    async def on_note_taken(event: NoteTaken) -> None:
        seen.add(event)

    bus.subscribe(Moved, on_moved)
    bus.subscribe(NoteTaken, on_note_taken)
    receipt = await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert [(event.causation_id, event.correlation_id) for event in seen] == [
        (receipt.event_id, receipt.event_id)
    ]


async def test_an_event_from_an_unrelated_thread_gets_no_causation_id_from_a_handler(
    backend: Backend,
) -> None:
    """Both events are in one batch; a cause belongs to its publisher, not to whatever woke the loop."""
    bus = await backend.start_bus()
    seen: Recorder[NoteTaken] = Recorder()

    async def on_moved(event: Moved) -> None:
        bus.publish_threadsafe(NoteTaken(1))
        other = threading.Thread(target=lambda: bus.publish_threadsafe(NoteTaken(2)))
        other.start()
        other.join()

    async def on_note_taken(event: NoteTaken) -> None:
        seen.add(event)

    bus.subscribe(Moved, on_moved)
    bus.subscribe(NoteTaken, on_note_taken)
    receipt = await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert {event.n: event.causation_id for event in seen} == {1: receipt.event_id, 2: None}


async def test_a_sync_handler_that_waits_for_its_publish_does_not_block_a_full_bus(backend: Backend) -> None:
    """All workers may be in such handlers; if these waited for room, none could ever make any."""
    bus = await backend.start_bus(worker_count=2, max_queue_size=2)
    seen: Recorder[int] = Recorder()

    def on_moved(event: Moved) -> None:
        bus.publish_threadsafe(NoteTaken(event.n)).result(LIMIT)

    async def on_note_taken(event: NoteTaken) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, on_moved, retry=ONE_ATTEMPT)
    bus.subscribe(NoteTaken, on_note_taken)
    for n in range(10):
        await bus.publish(Moved(f"piece-{n}", n))
    await bus.drain(LIMIT)
    assert sorted(seen) == list(range(10))
    assert await bus.dead_letters.list() == []


@pytest.mark.parametrize("others", [5, 600], ids=["one batch", "more than one batch"])
async def test_publishing_from_a_sync_handler_overtakes_threads_that_wait_for_room(
    memory: Backend, others: int
) -> None:
    """The bus takes entries of all threads in turn; a handler's entry must not wait behind others for room
    that the handler itself has to make, however many there are.
    """
    bus = await memory.start_bus(worker_count=1, max_queue_size=1)
    entered: Recorder[int] = Recorder()
    may_publish = threading.Event()
    seen: Recorder[int] = Recorder()

    def on_moved(event: Moved) -> None:
        entered.add(event.n)
        may_publish.wait(LIMIT)
        bus.publish_threadsafe(NoteTaken(1000)).result(LIMIT)

    async def on_note_taken(event: NoteTaken) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, on_moved, retry=ONE_ATTEMPT)
    bus.subscribe(NoteTaken, on_note_taken)
    await bus.publish(Moved("rook", 1))
    await entered.reach(1)
    futures = await run_in_thread(lambda: [bus.publish_threadsafe(NoteTaken(n)) for n in range(others)])
    await spin_loop()
    may_publish.set()
    await bus.drain(LIMIT)
    assert await bus.dead_letters.list() == []
    assert all(future.result(LIMIT) for future in futures)
    assert sorted(seen) == [*range(others), 1000]


async def test_threads_flooding_a_full_bus_cause_no_errors_and_lose_nothing(memory: Backend) -> None:
    """The loop reads entries while threads add more: it must neither fail nor scan all for each event."""
    bus = await memory.start_bus(worker_count=1, max_queue_size=1)
    gate = asyncio.Event()
    seen: Recorder[Moved] = Recorder()
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, trouble: troubles.append(trouble))

    async def note(event: Moved) -> None:
        await gate.wait()
        seen.add(event)

    def flood(thread: int) -> list[Future[Receipt]]:
        return [bus.publish_threadsafe(Moved(f"thread-{thread}", n)) for n in range(1500)]

    bus.subscribe(Moved, note)
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        await asyncio.gather(*(run_in_thread(partial(flood, thread)) for thread in range(3)))
    finally:
        sys.setswitchinterval(switch_interval)
    gate.set()
    await bus.drain(LIMIT)
    assert troubles == []
    assert by_piece(seen) == {f"thread-{thread}": list(range(1500)) for thread in range(3)}


async def test_publish_threadsafe_on_a_stopped_bus_raises_at_once(backend: Backend) -> None:
    """A future that is never resolved would block its thread for ever."""
    bus = await backend.start_bus()
    await bus.stop()
    error = await run_in_thread(lambda: _raised(lambda: bus.publish_threadsafe(Moved("rook"))))
    assert isinstance(error, BusNotRunningError)


def _raised(work: Callable[[], Any]) -> BaseException | None:
    try:
        work()
    except BaseException as error:
        return error
    return None


async def test_every_future_is_resolved_when_the_bus_stops_during_publishing(backend: Backend) -> None:
    """A thread may be waiting for a future that is never resolved as stored or rejected."""
    bus = await backend.start_bus()
    begun = threading.Event()
    outcomes: list[tuple[str, Future[Receipt] | None]] = []

    def publish() -> None:
        for n in range(2000):
            event = Moved("rook", n)
            try:
                outcomes.append((event.event_id, bus.publish_threadsafe(event)))
            except BusNotRunningError:
                outcomes.append((event.event_id, None))
            if n == 50:
                begun.set()

    publishing = asyncio.ensure_future(run_in_thread(publish))
    await run_in_thread(lambda: begun.wait(LIMIT))
    await bus.stop(timeout=5)
    await publishing
    accepted = []
    for event_id, future in outcomes:
        if future is None:
            continue
        error = future.exception(LIMIT)
        assert error is None or isinstance(error, (BusNotRunningError, InvalidEventError)), error
        if error is None:
            accepted.append(event_id)
    if bus.storage is not None:
        assert [envelope.event_id async for envelope in bus.storage.read()] == accepted


async def test_a_single_invalid_event_from_a_thread_does_not_block_drain(backend: Backend) -> None:
    """A batch of only bad events must end like any other, or ``drain`` would wait for ever."""
    bus = await backend.start_bus()
    future = await run_in_thread(lambda: bus.publish_threadsafe(object()))
    await bus.drain(LIMIT)
    assert isinstance(future.exception(LIMIT), InvalidEventError)


async def test_futures_that_wait_for_room_fail_when_the_bus_stops(memory: Backend) -> None:
    """Each thread is blocked until its future is resolved: the program would not end."""
    bus = await memory.start_bus(worker_count=1, max_queue_size=1)
    entered: Recorder[int] = Recorder()

    async def hang(event: Moved) -> None:
        entered.add(event.n)
        await asyncio.Event().wait()

    bus.subscribe(Moved, hang)
    await bus.publish(Moved("rook", 0))
    await entered.reach(1)
    futures = await run_in_thread(lambda: [bus.publish_threadsafe(Moved("rook", n)) for n in range(1, 600)])
    await spin_loop()
    await bus.stop(timeout=0)
    errors = {type(await run_in_thread(partial(future.exception, LIMIT))) for future in futures}
    assert errors == {BusNotRunningError}
    assert entered == [0]
