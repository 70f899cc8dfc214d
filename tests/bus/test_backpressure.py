"""A full bus makes publishers wait, rejects them, or drops and counts the oldest delivery. Promise 19."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage, QueueFullError, Receipt, RetryPolicy
from pabal.delivery.buffers import BUFFER_LIVE
from pabal.errors import BusNotRunningError
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import LIMIT, ONE_ATTEMPT, Backend, Recorder, spin_loop


async def _outcome(publishing: Awaitable[Receipt]) -> Receipt | Exception:
    [result] = await asyncio.gather(publishing, return_exceptions=True)
    assert isinstance(result, (Receipt, Exception))
    return result


class Gate:
    """A handler that blocks until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered: Recorder[int] = Recorder()
        self.handled: Recorder[int] = Recorder()

    async def handle(self, event: Any) -> None:
        self.entered.add(event.n)
        await self.open.wait()
        self.handled.add(event.n)


async def test_the_wait_policy_blocks_publishers_and_loses_nothing(memory: Backend) -> None:
    """Promise 19. The queue stays within its size, and every publisher is admitted eventually."""
    bus = await memory.start_bus(worker_count=1, max_queue_size=10)
    gate = Gate()
    bus.subscribe(Moved, gate)
    publishers = [asyncio.create_task(bus.publish(Moved("rook", n))) for n in range(100)]
    await gate.entered.reach(1)
    await spin_loop()
    assert sum(publisher.done() for publisher in publishers) == 10
    assert bus.get_statistics()["queue_size"] == 10
    assert bus.health().status == "degraded"
    assert "queue is full" in bus.health().reasons[0]
    gate.open.set()
    await asyncio.gather(*publishers)
    await bus.drain(60)
    assert gate.handled == list(range(100))
    assert bus.health().status == "ok"


async def test_the_raise_policy_rejects_only_events_that_do_not_fit(memory: Backend) -> None:
    """Promise 19. The publisher gets an error with the queue's size and limit, and can decide."""
    bus = await memory.start_bus(worker_count=1, max_queue_size=10, backpressure="raise")
    gate = Gate()
    bus.subscribe(Moved, gate)
    results = [await _outcome(bus.publish(Moved("rook", n))) for n in range(25)]
    rejected = [result for result in results if isinstance(result, QueueFullError)]
    assert [(error.queue_size, error.max_queue_size) for error in rejected] == [(10, 10)] * 15
    with pytest.raises(QueueFullError, match="publish slower"):
        await bus.publish_batch([Moved("rook", 99)])
    gate.open.set()
    await bus.drain(60)
    assert gate.handled == list(range(10))
    await bus.publish(Moved("rook", 100))
    await bus.drain(60)
    assert gate.handled[10] == 100


@pytest.mark.parametrize("policy", ["wait", "raise", "drop_oldest"])
async def test_events_without_a_subscription_take_no_room_in_the_queue(memory: Backend, policy: Any) -> None:
    """A full queue must not reject events that take no place in it."""
    bus = await memory.start_bus(max_queue_size=1, backpressure=policy)
    gate = Gate()
    bus.subscribe(Moved, gate)
    await bus.publish(Moved("rook", 1))
    for n in range(5):
        await bus.publish(NoteTaken(n))
    assert bus.get_statistics()["events_dropped"] == 0
    gate.open.set()
    await bus.drain(60)
    assert gate.handled == [1]


@pytest.mark.parametrize("size", [1, 2, 5])
async def test_publishing_inside_a_handler_of_a_full_bus_does_not_deadlock(
    backend: Backend, size: int
) -> None:
    """If handlers waited for room, none would be left to make any."""
    bus = await backend.start_bus(worker_count=2, max_queue_size=size)
    seen: Recorder[int] = Recorder()

    async def on_moved(event: Moved) -> None:
        await bus.publish(NoteTaken(event.n))
        await bus.publish_batch([NoteTaken(100 + event.n), NoteTaken(200 + event.n)])
        await asyncio.gather(*(bus.publish(NoteTaken(300 + event.n)) for _ in range(3)))

    async def on_note_taken(event: NoteTaken) -> None:
        await asyncio.sleep(0)
        seen.add(event.n)

    bus.subscribe(Moved, on_moved, retry=ONE_ATTEMPT)
    bus.subscribe(NoteTaken, on_note_taken)
    for n in range(20):
        await bus.publish(Moved(f"piece-{n % 3}", n))
    await bus.drain(20)
    assert len(seen) == 20 * 6


async def test_a_batch_handler_that_publishes_to_a_full_bus_does_not_deadlock(memory: Backend) -> None:
    """Batches go through the worker on a different path, which must also count as being in a handler."""
    bus = await memory.start_bus(worker_count=1, max_queue_size=1)
    seen: Recorder[int] = Recorder()

    async def on_moved(events: list[Moved]) -> None:
        await asyncio.gather(*(bus.publish(NoteTaken(event.n)) for event in events))

    async def on_note_taken(event: NoteTaken) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, on_moved, batch=5)
    bus.subscribe(NoteTaken, on_note_taken)
    await bus.publish_batch([Moved("rook", n) for n in range(10)])
    await bus.drain(20)
    assert sorted(seen) == list(range(10))


async def test_a_task_that_outlives_its_handler_waits_like_any_publisher(memory: Backend) -> None:
    """Only a handler that is still running must not wait; a background task that never waited would fill the
    memory.
    """
    bus = await memory.start_bus(worker_count=1, max_queue_size=3)
    gate = Gate()
    tasks: list[asyncio.Task[None]] = []
    may_publish = asyncio.Event()

    async def background() -> None:
        await may_publish.wait()
        for n in range(20):
            await bus.publish(NoteTaken(n))

    async def on_moved(event: Moved) -> None:
        tasks.append(asyncio.create_task(background()))

    bus.subscribe(Moved, on_moved)
    bus.subscribe(NoteTaken, gate)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    may_publish.set()
    await gate.entered.reach(1)
    await spin_loop()
    assert not tasks[0].done()
    assert bus.get_statistics()["queue_size"] <= 4
    gate.open.set()
    await tasks[0]
    await bus.drain(60)
    assert gate.handled == list(range(20))


async def test_a_publisher_cancelled_when_admitted_passes_its_place_to_the_next(memory: Backend) -> None:
    """If a publisher that is leaving takes the wake-up, the next one must get another."""
    bus = await memory.start_bus(max_queue_size=1)
    loop = asyncio.get_running_loop()
    release = asyncio.Event()
    publishers: list[asyncio.Task[Any]] = []

    async def handle(event: Moved) -> None:
        if event.n == 0:
            await release.wait()
            loop.call_soon(publishers[0].cancel)

    bus.subscribe(Moved, handle)
    await bus.publish(Moved("rook", 0))
    publishers += [asyncio.create_task(bus.publish(Moved("rook", n))) for n in (1, 2, 3)]
    await spin_loop()
    release.set()
    await asyncio.wait_for(asyncio.gather(*publishers[1:]), 10)
    await bus.drain(60)


async def test_unsubscribing_admits_waiting_publishers(memory: Backend) -> None:
    """No handler ends when a subscription is removed, so nothing else would wake the waiting publishers."""
    bus = await memory.start_bus(max_queue_size=1)
    calls: Recorder[int] = Recorder()

    async def fail(event: Moved) -> None:
        calls.add(event.n)
        raise ValueError("in an hour")

    async def note(event: NoteTaken) -> None: ...

    subscription = bus.subscribe(Moved, fail, retry=RetryPolicy(base_delay=3600, max_delay=3600))
    bus.subscribe(NoteTaken, note)
    await bus.publish(Moved("rook"))
    await calls.reach(1)
    publisher = asyncio.create_task(bus.publish(NoteTaken(1)))
    await spin_loop()
    assert not publisher.done()
    bus.unsubscribe(subscription)
    await asyncio.wait_for(publisher, 10)
    await bus.drain(60)


async def test_publishers_let_in_after_the_last_subscription_ended_let_others_in(
    memory: Backend,
) -> None:
    """Promise 19. Their events take no room, and no worker stirs: the others would wait for ever."""
    bus = await memory.start_bus(max_queue_size=4)
    gate = Gate()
    subscription = bus.subscribe(NoteTaken, gate, ordering=lambda note: "notes")
    publishers = [asyncio.create_task(bus.publish(NoteTaken(n))) for n in range(20)]
    await gate.entered.reach(1)
    await spin_loop()
    bus.unsubscribe(subscription)
    await asyncio.wait_for(asyncio.gather(*publishers), LIMIT)


async def test_a_lagging_subscription_does_not_block_publishers_of_a_bus_with_a_log(stored: Backend) -> None:
    """With a log, the queue is on disk: events that do not fit in memory wait there, not in the publisher."""
    bus = await stored.start_bus(max_queue_size=10)
    gate = Gate()
    bus.subscribe(Moved, gate)
    for n in range(50):
        await bus.publish_batch([Moved(f"piece-{m % 5}", m) for m in range(n * 500, n * 500 + 500)])
    assert bus.get_statistics()["queue_size"] <= BUFFER_LIVE, "memory must stay bounded"
    gate.open.set()
    await bus.drain(30)
    assert sorted(gate.handled) == list(range(25_000))


async def test_a_bus_with_a_log_raises_when_too_many_events_wait_for_their_commit(tmp_path: Path) -> None:
    """Promise 19. On a stored bus, only events that wait for their commit can pile up."""
    backend = Backend("sqlite", tmp_path)
    bus = await backend.start_bus(max_queue_size=5, backpressure="raise")
    results = await asyncio.gather(
        *(bus.publish(Moved("rook", n)) for n in range(20)), return_exceptions=True
    )
    rejected = [result for result in results if isinstance(result, QueueFullError)]
    assert len(rejected) == 15
    assert bus.storage is not None
    assert await bus.storage.head() == 5
    await backend.close()


async def test_a_stop_skips_cancelled_publishers(memory: Backend) -> None:
    """Counted as admitted, they would take room from publishers for ever after the next start."""
    bus = await memory.start_bus(worker_count=1, max_queue_size=1)
    gate = Gate()
    bus.subscribe(Moved, gate, name="gate")
    await bus.publish(Moved("rook", 0))
    await gate.entered.reach(1)
    impatient = asyncio.ensure_future(bus.publish(Moved("rook", 1)))
    waiting = asyncio.ensure_future(bus.publish(Moved("rook", 2)))
    await spin_loop()
    impatient.cancel()
    await spin_loop()
    await bus.stop(timeout=0)
    assert isinstance(await _outcome(waiting), BusNotRunningError)
    assert impatient.cancelled()
    gate.open.set()
    await bus.start()
    async with asyncio.timeout(60):
        for n in range(3, 6):
            await bus.publish(Moved("rook", n))
    await bus.drain(60)
    assert gate.handled == [3, 4, 5]


async def test_cancelled_publishers_leave_no_waiters_behind(memory: Backend) -> None:
    """With a handler that hangs, a publisher that tries again and again would fill the memory."""
    bus = await memory.start_bus(max_queue_size=1)
    gate = Gate()
    bus.subscribe(Moved, gate)
    await bus.publish(Moved("rook", 1))
    for _ in range(5):
        publishing = asyncio.create_task(bus.publish(Moved("rook", 2)))
        await spin_loop(3)
        publishing.cancel()
        await asyncio.wait([publishing])
    assert len(bus._engine.admission.waiters) == 0
    gate.open.set()
    await bus.drain(60)


async def start_bus_with_a_slow_log(
    monkeypatch: pytest.MonkeyPatch, append_when: Callable[[], Awaitable[object]], limit: int
) -> InMemoryEventBus:
    """Return a bus whose log appends only after what ``append_when`` returns has been awaited."""
    storage = InMemoryEventStorage()
    append_at_once = storage.append_events

    async def append_later(events: Sequence[DomainEvent]) -> list[int]:
        await append_when()
        return await append_at_once(events)

    monkeypatch.setattr(storage, "append_events", append_later)
    bus = InMemoryEventBus(storage, max_queue_size=limit)
    await bus.start()
    return bus


async def test_a_publisher_that_waits_for_a_full_log_is_not_overtaken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A task that publishes in a loop would take each free place before those that wait notice it."""
    committed = asyncio.Event()
    bus = await start_bus_with_a_slow_log(monkeypatch, committed.wait, limit=1)

    async def publish_first_and_third() -> None:
        await bus.publish(Moved("rook", 1))
        await bus.publish(Moved("rook", 3))

    in_a_loop = asyncio.create_task(publish_first_and_third())
    await spin_loop()
    waiting = asyncio.create_task(bus.publish(Moved("rook", 2)))
    await spin_loop()
    committed.set()
    await asyncio.wait_for(asyncio.gather(in_a_loop, waiting), LIMIT)
    assert bus.storage is not None
    assert [stored.event.n async for stored in bus.storage.read()] == [1, 2, 3]
    await bus.stop()


async def test_publishers_that_wait_for_a_full_log_are_each_woken_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If each commit woke all of them to look again, 100,000 at once would take minutes."""
    bus = await start_bus_with_a_slow_log(monkeypatch, lambda: asyncio.sleep(0), limit=10)
    loop = asyncio.get_running_loop()
    call_soon, calls = loop.call_soon, 0

    def count_call(*args: Any, **options: Any) -> asyncio.Handle:
        nonlocal calls
        calls += 1
        return call_soon(*args, **options)

    monkeypatch.setattr(loop, "call_soon", count_call)
    await asyncio.gather(*(bus.publish(Moved("rook", n)) for n in range(1000)))
    assert calls < 10_000
    await bus.stop()


def test_publishers_of_a_closed_loop_take_no_room_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was let in and never resumed would be waited for: a bus with room for one would take none."""
    bus = InMemoryEventBus(worker_count=1, max_queue_size=1)
    gate = Gate()
    bus.subscribe(Moved, gate)
    publishers: list[asyncio.Task[Receipt]] = []

    async def publish_and_end_the_loop() -> None:
        await bus.start()
        await bus.publish(Moved("rook", 1))
        publishers.append(asyncio.create_task(bus.publish(Moved("rook", 2))))
        await gate.entered.reach(1)
        let_in = bus._engine.admission.let_in

        def let_in_too_late(waiter: asyncio.Future[None]) -> None:
            let_in(waiter)
            asyncio.get_running_loop().stop()  # before the publisher can resume

        monkeypatch.setattr(bus._engine.admission, "let_in", let_in_too_late)
        gate.open.set()

    async def publish_again() -> None:
        async with asyncio.timeout(LIMIT), bus:
            await asyncio.gather(*(bus.publish(Moved("rook", n)) for n in range(3, 6)))

    loop = asyncio.new_event_loop()
    main = loop.create_task(publish_and_end_the_loop())
    loop.run_forever()
    loop.close()
    assert main.done()
    assert not publishers[0].done()
    monkeypatch.undo()
    gate.open = asyncio.Event()
    gate.open.set()
    asyncio.run(publish_again())
    assert gate.handled == [1, 3, 4, 5]
