"""After a restart, deliveries in which the process died are made one at a time, apart from all others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pabal import InMemoryEventBus, RetryPolicy, SqliteEventStorage
from pabal.ports.storage import Progress
from pabal.storage.sqlite.journal import journal_path
from pabal.testing import VirtualClock
from tests.storage.events import Recorder, Tick

DEAD = "d" * 32


async def crash_during(path: Path, positions: Sequence[int], attempt: int = 1) -> None:
    """Prepare a file as if a process had died while these positions, of ten events, were in flight."""
    async with SqliteEventStorage(path) as storage:
        if await storage.head() == 0:
            await storage.store_events([Tick(f"key-{n}", n) for n in range(1, 11)])
        cursor = await storage.open_subscription("s", "beginning")
        assert cursor is not None
        await storage.save_progress([Progress("s", cursor.epoch, 0, 0)])
        base = storage.journal.reserve(len(positions))
        for slot, position in enumerate(positions):
            storage.journal.begin(base + slot, cursor.number, position, position, attempt)
        content = storage.journal.path.read_bytes()
        await storage._do(lambda tx: tx.execute("UPDATE subscriptions SET owner = ?", (DEAD,)))
    journal_path(path, DEAD).write_bytes(content)


class ConcurrencyRecorder:
    """A handler that records which other events were being handled at the same time."""

    def __init__(self) -> None:
        self.running: set[int] = set()
        self.beside: dict[int, set[int]] = {}
        self.order: list[int] = []
        self.attempts: dict[int, int] = {}

    async def handle(self, event: Tick, context: Any) -> None:
        self.running.add(event.number)
        for number in self.running:
            self.beside.setdefault(number, set()).update(self.running - {number})
        self.attempts[event.number] = context.attempt
        for _ in range(5):
            await asyncio.sleep(0)
        self.running.discard(event.number)
        self.order.append(event.number)


async def restart_and_drain(path: Path, **options: Any) -> tuple[ConcurrencyRecorder, list[Any]]:
    recorder = ConcurrencyRecorder()
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, recorder, name="s", start="beginning", **options)
        await bus.drain(timeout=20)
        letters = await bus.dead_letters.list()
    return recorder, letters


async def test_suspect_deliveries_run_first_and_alone(path: Path) -> None:
    """Run together, an innocent suspect would lose an attempt whenever the guilty one kills the process."""
    await crash_during(path, [2, 3, 5])
    recorder, letters = await restart_and_drain(path)
    assert sorted(recorder.order) == list(range(1, 11))
    assert set(recorder.order[:3]) == {2, 3, 5}
    assert [recorder.beside[number] for number in (2, 3, 5)] == [set(), set(), set()]
    assert [recorder.attempts[number] for number in (1, 2, 3, 5)] == [1, 2, 2, 2]
    assert letters == []
    # Afterwards, the others run concurrently again.
    assert any(recorder.beside[number] for number in (6, 7, 8, 9, 10))


async def test_another_subscription_waits_for_suspect_deliveries(path: Path) -> None:
    """Its handler could be the one that kills the process, and the suspect would lose another attempt."""
    await crash_during(path, [2, 3])
    recorder = ConcurrencyRecorder()

    async def watch(event: Tick) -> None:
        assert len(recorder.order) >= 2, "a suspect has not been handled yet"

    async with SqliteEventStorage(path) as storage:
        bus = InMemoryEventBus(storage)
        bus.subscribe(Tick, watch, name="other", start="beginning", retry=RetryPolicy(max_attempts=1))
        bus.subscribe(Tick, recorder, name="s", start="beginning")
        async with bus:
            await bus.drain(timeout=20)
            assert await bus.dead_letters.list() == []
    assert set(recorder.order[:2]) == {2, 3}


async def test_the_history_of_a_finished_delivery_keeps_a_process_death(path: Path) -> None:
    """Otherwise an operator could not find out later in which delivery a process had died."""
    await crash_during(path, [2])
    await restart_and_drain(path)
    async with SqliteEventStorage(path) as storage:
        [shown] = await storage.deliveries_at(2)
        [other] = await storage.deliveries_at(3)
    assert (shown.state, shown.attempts) == ("finished", 2)
    assert [failure.error_type for failure in shown.failures] == ["ProcessDied"]
    assert (other.state, other.attempts) == ("finished", 0)


async def test_suspect_deliveries_run_alone_without_ordering_too(path: Path) -> None:
    """Without ordering, they are in a lane that several workers share with other events."""
    await crash_during(path, [2, 3, 5])
    recorder, letters = await restart_and_drain(path, ordering=None)
    assert [recorder.beside[number] for number in (2, 3, 5)] == [set(), set(), set()]
    assert sorted(recorder.order) == list(range(1, 11))
    assert letters == []


async def test_a_suspect_that_died_among_others_gets_one_more_attempt(path: Path) -> None:
    """Its attempts are used up, but another delivery may have caused the death."""
    await crash_during(path, [2, 3])
    recorder, letters = await restart_and_drain(path, retry=RetryPolicy(max_attempts=1))
    assert sorted(recorder.order) == list(range(1, 11))
    assert letters == []


async def test_a_delivery_that_died_alone_in_its_last_attempt_is_parked(path: Path) -> None:
    """Promise 6: no other delivery can have caused the death."""
    await crash_during(path, [2])
    recorder, letters = await restart_and_drain(path, retry=RetryPolicy(max_attempts=1))
    assert 2 not in recorder.order
    assert [letter.position for letter in letters] == [2]
    assert [attempt.error_type for attempt in letters[0].attempts] == ["ProcessDied"]


async def test_the_quarantine_ends_after_ten_seconds(path: Path) -> None:
    """A suspect may wait for an event that is itself held back because of the suspect."""
    await crash_during(path, [2])
    clock = VirtualClock(start=time.time() + 60)  # the death is recorded in real time, so it is in the past
    begun, released = asyncio.Event(), asyncio.Event()
    seen = Recorder()

    async def handle(event: Tick) -> None:
        if event.number == 2:
            begun.set()
            await released.wait()
        if event.number == 3:
            released.set()
        await seen.handle(event)

    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage, clock=clock) as bus:
        bus.subscribe(Tick, handle, name="s", start="beginning")
        await asyncio.wait_for(begun.wait(), 20)
        assert seen.seen == []
        await clock.advance(10)
        await seen.reaches(10)
        await bus.drain(timeout=20)


async def test_a_batch_that_died_in_its_last_attempt_is_delivered_one_by_one(path: Path) -> None:
    """Promise 6. Otherwise a batch of five hundred would be parked because of the one event that kills."""
    await crash_during(path, [1])  # a batch is recorded by its first event
    batches: list[list[int]] = []

    async def handle(events: list[Tick]) -> None:
        batches.append([event.number for event in events])

    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, handle, name="s", start="beginning", batch=5, retry=RetryPolicy(max_attempts=1))
        await bus.drain(timeout=20)
        letters = await bus.dead_letters.list()
    assert letters == []
    assert batches == [[1], [2], [3], [4], [5], [6, 7, 8, 9, 10]]


async def test_an_event_parked_for_killing_the_process_does_not_block_lower_priorities(path: Path) -> None:
    """Promise 16. No further attempt is made on it, so no other subscription may wait for one."""
    await crash_during(path, [2])
    first, second = ConcurrencyRecorder(), ConcurrencyRecorder()
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        once = RetryPolicy(max_attempts=1)
        bus.subscribe(Tick, first, name="s", start="beginning", priority=1, retry=once)
        bus.subscribe(Tick, second, name="follower", start="beginning", priority=2)
        await bus.drain(timeout=20)
    assert sorted(first.order) == [1, *range(3, 11)]
    assert sorted(second.order) == list(range(1, 11))


async def test_the_timer_of_a_finished_quarantine_does_not_disturb_delivery(path: Path) -> None:
    """The timer outlives its quarantine; it must not end the next one."""
    await crash_during(path, [2])
    clock = VirtualClock(start=time.time() + 60)
    seen = Recorder()
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage, clock=clock) as bus:
        bus.subscribe(Tick, seen, name="s", start="beginning")
        await seen.reaches(10)
        await bus.drain(timeout=20)
        assert not bus._engine.quarantine.active
        await clock.advance(10)
        await bus.publish(Tick("key-1", 11))
        await seen.reaches(11)
    assert sorted(seen.numbers) == list(range(1, 12))
