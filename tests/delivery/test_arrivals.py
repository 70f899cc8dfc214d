"""Deliveries go directly to their handler until one has to wait; both paths behave the same."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict

import pytest
from tests.bus.samples import Moved, NoteTaken, Weighed
from tests.bus.support import Recorder

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage, NotRetryableError, RetryPolicy


class WithoutAggregateId(DomainEvent):
    """An event whose ``aggregate_id`` raises."""

    n: int

    @property
    def aggregate_id(self) -> str:
        raise LookupError("no such piece")


@pytest.mark.parametrize("stored", [False, True], ids=["no log", "log"])
@pytest.mark.parametrize("seed", range(40))
async def test_order_per_key_holds_when_deliveries_switch_between_direct_and_queued(
    seed: int, stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 11. Events of one key would overtake each other when a handler begins or stops waiting."""
    rng = random.Random(seed)
    monkeypatch.setattr("pabal.delivery.worker._SORT_MOST", rng.choice((2, 2048)))
    monkeypatch.setattr("pabal.delivery.worker._TURN", rng.choice((0.0, 0.001)))
    storage = InMemoryEventStorage() if stored else None
    bus = InMemoryEventBus(storage, worker_count=rng.choice((1, 2, 3)), seed=seed)
    waiting, parking, rare = rng.choice((0.04, 0.1)), rng.choice((0.003, 0.02)), rng.choice((0.005, 0.02))
    inside: Counter[str] = Counter()
    handled: dict[str, list[int]] = defaultdict(list)

    async def handle(event: Moved | Weighed) -> None:
        inside[event.piece] += 1
        assert inside[event.piece] == 1, "two at once on one key"
        try:
            if rng.random() < waiting:
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
            if rng.random() < 0.02:
                raise ConnectionError("now and then")
            if rng.random() < parking:
                raise NotRetryableError("parked, and retried later")
            handled[event.piece].append(event.n)
        finally:
            inside[event.piece] -= 1

    patient = RetryPolicy(max_attempts=50, base_delay=0.0)
    bus.subscribe((Moved, Weighed), handle, name="mover", retry=patient, on_exhausted="park_key")
    published: dict[str, list[int]] = defaultdict(list)
    async with bus:
        for n in range(200):
            batch: list[DomainEvent] = []
            for number in range(n * 10, n * 10 + rng.choice((1, 1, 3, 8))):
                piece = f"p{rng.randrange(5)}"
                batch.append(rng.choice((Moved, Moved, Weighed))(piece, number))
                published[piece].append(number)
            await (bus.publish(batch[0]) if len(batch) == 1 else bus.publish_batch(batch))
            for _ in range(rng.choice((0, 0, 1, 20))):
                await asyncio.sleep(0)
            if rng.random() < 0.3:
                await bus.dead_letters.retry("all")
            if rng.random() < rare:
                priority = rng.choice((0, 1, 2))
                bus.subscribe(NoteTaken, handle, name=f"other {n}", priority=priority)  # type: ignore[arg-type]
        await bus.drain(timeout=30)
        while await bus.dead_letters.list():
            await bus.dead_letters.retry("all")
            await bus.drain(timeout=30)
        assert handled == published
        assert bus.get_statistics()["queue_size"] == 0
        mover = bus.get_statistics()["subscriptions"]["mover"]
        assert mover["handled"] == sum(map(len, published.values()))


async def test_events_behind_a_waiting_handler_are_counted_and_other_lanes_continue() -> None:
    """Promise 14. One slow key would block the batch that arrived with it."""
    bus = InMemoryEventBus(worker_count=2)
    gate = asyncio.Event()
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        if event.n == 0:
            await gate.wait()
        seen.add(event.n)

    bus.subscribe(Moved, handle, name="mover")
    async with bus:
        await bus.publish_batch([Moved("slow", 0), Moved("slow", 1), Moved("a", 2), Moved("b", 3)])
        await seen.reach(2)
        assert seen == [2, 3]
        assert bus.get_statistics()["queue_size"] == 2
        gate.set()
        await bus.drain(timeout=60)
        assert seen == [2, 3, 0, 1]


async def test_with_one_worker_the_waiting_events_are_counted() -> None:
    """With no second worker to sort the arrivals, they would stay in the queue when the subscription ends."""
    bus = InMemoryEventBus(worker_count=1)
    begun: Recorder[int] = Recorder()
    gate = asyncio.Event()

    async def handle(event: Moved) -> None:
        begun.add(event.n)
        await gate.wait()

    subscription = bus.subscribe(Moved, handle, name="mover")
    async with bus:
        await bus.publish_batch([Moved("a", n) for n in range(5)])
        await begun.reach(1)
        assert bus.get_statistics()["subscriptions"]["mover"]["lag"] == 4
        assert bus.unsubscribe(subscription)
        assert bus.get_statistics()["queue_size"] == 1
        gate.set()
        await bus.drain(timeout=60)
        assert begun == [0]
        assert bus.get_statistics()["queue_size"] == 0


@pytest.mark.parametrize("waits", [False, True])
async def test_a_failed_event_whose_aggregate_id_raises_is_parked_on_both_paths(waits: bool) -> None:
    """An ``aggregate_id`` that raises would end the worker that handles its event."""
    bus = InMemoryEventBus(worker_count=2)

    async def handle(event: WithoutAggregateId) -> None:
        if waits:
            await asyncio.sleep(0)
        if event.n == 1:
            raise ValueError("not this one")

    bus.subscribe(WithoutAggregateId, handle, name="sub", retry=RetryPolicy(max_attempts=1))
    async with bus:
        for n in range(4):
            await bus.publish(WithoutAggregateId(n))
            await bus.drain(timeout=60)
        [letter] = await bus.dead_letters.list()
        assert letter.event == WithoutAggregateId(1)
        assert bus.get_statistics()["subscriptions"]["sub"]["handled"] == 3
        assert bus.get_statistics()["queue_size"] == 0


async def test_events_that_waited_for_a_priority_stay_ahead_of_those_that_need_not() -> None:
    """Once the higher number has gone, newer events go directly, and would overtake those of their key."""
    handled: Recorder[int] = Recorder()
    gate, entered = asyncio.Event(), asyncio.Event()

    async def occupy_the_worker(event: NoteTaken) -> None:
        entered.set()
        await gate.wait()

    async def first(event: Moved) -> None:
        handled.add(event.n)

    async def second(event: Moved) -> None:
        pass

    async with InMemoryEventBus(worker_count=1) as bus:
        bus.subscribe(NoteTaken, occupy_the_worker, priority=0)
        bus.subscribe(Moved, first, priority=0)
        higher = bus.subscribe(Moved, second, priority=1)
        await bus.publish(NoteTaken(0))
        await entered.wait()
        await bus.publish_batch([Moved("A", n) for n in range(5)])
        bus.unsubscribe(higher)
        await bus.publish(Moved("A", 5))
        gate.set()
        await bus.drain(60)
    assert handled == list(range(6))
