"""Priorities: lower numbers go first. Promise 16."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from pabal import InMemoryEventBus, RetryPolicy, SqliteEventStorage
from pabal.testing import VirtualClock
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import LIMIT, ONE_ATTEMPT, RETRY_AT_ONCE, Backend, Recorder, spin_loop


class PriorityRecorder:
    """Record when handlers of several priorities begin and end, to check the promise at the end."""

    def __init__(self, rng: random.Random) -> None:
        self.history: list[tuple[int, int, str]] = []
        self._rng = rng
        self.fail_first_attempts = False
        self._failed: set[tuple[int, int]] = set()

    def handler(self, priority: int) -> Any:
        async def handle(event: Any) -> None:
            self.history.append((event.n, priority, "begins"))
            for _ in range(self._rng.choice((0, 1, 3))):
                await asyncio.sleep(0)
            self.history.append((event.n, priority, "ends"))
            if self.fail_first_attempts and (event.n, priority) not in self._failed:
                self._failed.add((event.n, priority))
                raise ValueError("at first")

        return handle

    def violations(self, priorities: list[int]) -> list[tuple[int, int]]:
        """Return (event, priority) of every handler that began before a lower number had ended its first
        attempt.
        """
        ended: dict[int, set[int]] = {}
        found = []
        for n, priority, what in self.history:
            if what == "ends":
                ended.setdefault(n, set()).add(priority)
            elif any(lower < priority and lower not in ended.get(n, ()) for lower in priorities):
                found.append((n, priority))
        return found


async def test_no_handler_starts_before_all_lower_numbers_made_their_first_attempt(backend: Backend) -> None:
    """Promise 16, live. A risk check that runs after the order was sent is worse than none."""
    bus = await backend.start_bus(worker_count=8)
    recorder = PriorityRecorder(random.Random(3))
    for priority in (3, 1, 2):
        bus.subscribe(Moved, recorder.handler(priority), name=f"tier-{priority}", priority=priority)
    for n in range(200):
        await bus.publish(Moved(f"piece-{n % 9}", n))
    await bus.drain(20)
    assert len(recorder.history) == 2 * 3 * 200
    assert recorder.violations([1, 2, 3]) == []


async def test_a_higher_number_waits_for_a_lower_number_that_is_still_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 16, right after subscribing: an order would be sent before the risk check is there."""
    opened = asyncio.Event()
    storage = SqliteEventStorage(tmp_path / "log.db")
    open_subscription = storage.open_subscription

    async def wait_and_open(opening: Any) -> Any:
        await opened.wait()
        return await opening

    def open_slowly(name: str, start: Any, *, epoch: int | None = None) -> Any:
        opening = open_subscription(name, start, epoch=epoch)  # the position where it begins is fixed here
        return wait_and_open(opening) if name == "low" else opening

    monkeypatch.setattr(storage, "open_subscription", open_slowly)
    seen: list[str] = []
    async with storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Moved, lambda _: seen.append("high"), name="high", priority=2)
        bus.subscribe(Moved, lambda _: seen.append("low"), name="low", priority=1)
        bus.subscribe(Moved, lambda _: seen.append("beside"), name="beside", priority=1)
        await bus.publish(Moved("rook", 1))
        async with asyncio.timeout(LIMIT):
            while not seen:  # noqa: ASYNC110 - a sync handler, in a thread
                await asyncio.sleep(0.001)
        await spin_loop()
        assert seen == ["beside"]
        opened.set()
        await bus.drain(60)
    assert seen == ["beside", "low", "high"]


async def test_events_without_a_key_respect_priorities(backend: Backend) -> None:
    """Promise 16. Several workers take deliveries without a key at once, on another path of the engine."""
    bus = await backend.start_bus(worker_count=8)
    recorder = PriorityRecorder(random.Random(4))
    for priority in (5, -1):
        bus.subscribe(NoteTaken, recorder.handler(priority), name=f"tier-{priority}", priority=priority)
    await bus.publish_batch([NoteTaken(n) for n in range(200)])
    await bus.drain(20)
    assert len(recorder.history) == 2 * 2 * 200
    assert recorder.violations([-1, 5]) == []


async def test_priorities_hold_while_subscriptions_catch_up_together(stored: Backend) -> None:
    """Promise 16, from the log. Subscriptions that read concurrently must not overtake one another."""
    bus = await stored.start_bus(worker_count=8)
    await bus.publish_batch([Moved(f"piece-{n % 9}", n) for n in range(600)])
    recorder = PriorityRecorder(random.Random(5))
    for priority in (2, 1):
        bus.subscribe(
            Moved, recorder.handler(priority), name=f"tier-{priority}", priority=priority, start="beginning"
        )
    for n in range(600, 700):
        await bus.publish(Moved(f"piece-{n % 9}", n))
    await bus.drain(30)
    assert len(recorder.history) == 2 * 2 * 700
    assert recorder.violations([1, 2]) == []


async def test_a_failed_first_attempt_releases_the_higher_number(backend: Backend) -> None:
    """The promise is about first attempts: a retry in an hour must not block higher numbers for an hour."""
    bus = await backend.start_bus()
    seen: Recorder[int] = Recorder()

    async def low(event: Moved) -> None:
        raise ValueError("later, perhaps")

    async def high(event: Moved) -> None:
        seen.add(event.n)

    patient = RetryPolicy(max_attempts=2, base_delay=3600, max_delay=3600)
    bus.subscribe(Moved, low, priority=1, retry=patient)
    bus.subscribe(Moved, high, priority=2)
    await bus.publish(Moved("rook", 7))
    await seen.reach(1)


async def test_priorities_hold_when_first_attempts_fail(backend: Backend) -> None:
    """Promise 16. Retries come back while later events are being attempted."""
    bus = await backend.start_bus(worker_count=8)
    recorder = PriorityRecorder(random.Random(6))
    recorder.fail_first_attempts = True
    for priority in (1, 2):
        bus.subscribe(
            Moved, recorder.handler(priority), name=f"tier-{priority}", priority=priority, retry=RETRY_AT_ONCE
        )
    await bus.publish_batch([Moved(f"piece-{n % 5}", n) for n in range(100)])
    await bus.drain(20)
    assert len(recorder.history) == 2 * 2 * 2 * 100
    assert recorder.violations([1, 2]) == []


async def test_equal_priority_numbers_run_independently(backend: Backend) -> None:
    """A handler that waits must not block another one of the same priority."""
    bus = await backend.start_bus(worker_count=2)
    release = asyncio.Event()
    seen: Recorder[int] = Recorder()

    async def slow(event: Moved) -> None:
        await release.wait()

    async def quick(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, slow, priority=4)
    bus.subscribe(Moved, quick, priority=4)
    await bus.publish(Moved("rook", 1))
    await seen.reach(1)
    release.set()
    await bus.drain(60)


async def test_a_higher_number_waits_only_for_subscriptions_to_the_same_event(backend: Backend) -> None:
    """A lower number that is busy with events of other types must not matter to this one."""
    bus = await backend.start_bus(worker_count=2)
    release = asyncio.Event()
    entered = asyncio.Event()
    seen: Recorder[int] = Recorder()

    async def low(event: NoteTaken) -> None:
        entered.set()
        await release.wait()

    async def high(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(NoteTaken, low, priority=1)
    bus.subscribe(Moved, high, priority=2)
    await bus.publish(NoteTaken(1))
    await entered.wait()
    await bus.publish(Moved("rook", 2))
    await seen.reach(1)
    release.set()
    await bus.drain(60)


async def test_an_event_filtered_out_by_the_lower_number_reaches_the_higher_one(backend: Backend) -> None:
    """An event rejected by ``where`` counts as attempted."""
    bus = await backend.start_bus()
    seen: Recorder[int] = Recorder()

    async def low(event: Moved) -> None: ...

    async def high(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, low, priority=1, where=lambda event: False)
    bus.subscribe(Moved, high, priority=2)
    await bus.publish(Moved("rook", 3))
    await bus.drain(60)
    assert seen == [3]


async def test_unsubscribing_the_lower_number_releases_the_higher_one(backend: Backend) -> None:
    """A subscription that has ended attempts nothing, so waiting for it would never end."""
    bus = await backend.start_bus(worker_count=4)
    entered = asyncio.Event()
    release = asyncio.Event()
    seen: Recorder[int] = Recorder()

    async def low(event: Any) -> None:
        entered.set()
        await release.wait()

    async def high(event: Any) -> None:
        seen.add(event.n)

    subscription = bus.subscribe((Moved, NoteTaken), low, priority=1)
    bus.subscribe((Moved, NoteTaken), high, priority=2)
    await bus.publish_batch([Moved("rook", 1), Moved("rook", 2), NoteTaken(3)])
    await entered.wait()
    await spin_loop()
    assert seen == []
    bus.unsubscribe(subscription)
    await seen.reach(3)
    assert sorted(seen) == [1, 2, 3]
    release.set()
    await bus.drain(60)


async def test_unsubscribing_the_higher_number_leaves_nothing_for_drain_to_wait_for(
    backend: Backend,
) -> None:
    """Deliveries held back by priority are pending; they must go with their subscription."""
    bus = await backend.start_bus(worker_count=4)
    entered: Recorder[int] = Recorder()
    release = asyncio.Event()

    async def low(event: Any) -> None:
        entered.add(event.n)
        await release.wait()

    async def high(event: Any) -> None:
        raise AssertionError("unsubscribed")

    bus.subscribe((Moved, NoteTaken), low, priority=1)
    subscription = bus.subscribe((Moved, NoteTaken), high, priority=2)
    await bus.publish_batch([Moved("rook", 1), NoteTaken(2), NoteTaken(3)])
    await entered.reach(3)
    await spin_loop()
    bus.unsubscribe(subscription)
    release.set()
    await bus.drain(60)
    assert bus.get_statistics()["queue_size"] == 0


async def test_a_halted_lower_number_does_not_block_the_higher_one(backend: Backend) -> None:
    """One subscription that stops must not stop the others."""
    bus = await backend.start_bus()
    seen: Recorder[int] = Recorder()

    async def low(event: Moved) -> None:
        raise ValueError("stop here")

    async def high(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, low, name="low", priority=1, retry=ONE_ATTEMPT, on_exhausted="stop")
    bus.subscribe(Moved, high, priority=2)
    await bus.publish_batch([Moved("rook", n) for n in range(3)])
    await seen.reach(3)
    assert seen == [0, 1, 2]
    await bus.drain(60)


async def test_batches_respect_priorities(backend: Backend) -> None:
    """Promise 16. A batch must end before an event that the lower number has not attempted."""
    bus = await backend.start_bus(worker_count=4)
    attempted: set[int] = set()
    early: list[int] = []
    seen: Recorder[int] = Recorder()

    async def low(event: Moved) -> None:
        await asyncio.sleep(0)
        attempted.add(event.n)

    async def high(events: list[Moved]) -> None:
        early.extend(event.n for event in events if event.n not in attempted)
        for event in events:
            seen.add(event.n)

    bus.subscribe(Moved, low, priority=1)
    bus.subscribe(Moved, high, priority=2, batch=25)
    await bus.publish_batch([Moved(f"piece-{n % 4}", n) for n in range(200)])
    await bus.drain(20)
    assert early == []
    assert seen == list(range(200))


async def test_events_the_lower_number_no_longer_takes_do_not_block_the_higher_one(
    stored: Backend, clock: VirtualClock
) -> None:
    """Events that the name's former subscription left unfinished, and the new one skips, get no first
    attempt: the higher number would wait for one for ever, while health is ok.
    """
    bus = await stored.start_bus(clock=clock)
    seen: Recorder[int] = Recorder()

    async def fail(event: Any) -> None:
        if event.n == 0:
            raise ValueError("not yet")

    async def note(event: Any) -> None:
        seen.add(event.n)

    gate = asyncio.Event()

    async def note_later(event: Any) -> None:
        await gate.wait()
        seen.add(event.n)

    first = bus.subscribe((Moved, NoteTaken), fail, name="first", retry=RetryPolicy(base_delay=1000))
    await bus.publish_batch([*(Moved("rook", n) for n in range(3)), Moved("king", 3)])  # 1, 2 wait for 0
    await bus.drain(20, retries=False)
    bus.unsubscribe(first)
    bus.subscribe(Moved, note_later, name="second", priority=2, start="beginning")
    bus.subscribe(NoteTaken, note, name="first")
    await bus.publish(NoteTaken(9))
    await seen.reach(1)
    gate.set()
    await bus.drain(20)
    assert sorted(seen) == [0, 1, 2, 3, 9]
