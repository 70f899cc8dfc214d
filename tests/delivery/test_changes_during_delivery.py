"""Changes to a subscription or its bus at the moment when a handler runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.bus.samples import Moved
from tests.bus.support import ONE_ATTEMPT, Recorder, numbers, statistics_of
from tests.delivery.harness import Harness

from pabal import InMemoryEventBus, InMemoryEventStorage, NotRetryableError
from pabal.delivery.histogram import Histogram, quantiles


async def test_middleware_added_by_a_handler_wraps_the_next_delivery() -> None:
    """Deliveries on the fast path would bypass an audit or a lock that is already in force."""
    storage = InMemoryEventStorage()
    seen: Recorder[int] = Recorder()
    audited: Recorder[int] = Recorder()

    async def audit(event: Any, context: Any, call_next: Any) -> Any:
        audited.add(event.n)
        return await call_next()

    async def handle(event: Moved) -> None:
        if event.n == 3:
            bus.use(audit)
        seen.add(event.n)

    bus = InMemoryEventBus(storage, worker_count=1)
    bus.subscribe(Moved, handle, name="mover")
    async with bus:
        await bus.publish_batch([Moved(f"piece-{n}", n) for n in range(1, 8)])
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert audited == [4, 5, 6, 7]


async def test_a_higher_number_added_during_a_delivery_waits_for_that_delivery() -> None:
    """Promise 16. It would overtake the running delivery, or wait for its end for ever."""
    storage = InMemoryEventStorage()
    order: Recorder[tuple[str, int]] = Recorder()

    async def follow(event: Moved) -> None:
        order.add(("second", event.n))

    async def lead(event: Moved) -> None:
        if event.n == 1:
            bus.subscribe(Moved, follow, name="second", priority=2, start="beginning")
            await bus._engine.background.wait_until(lambda: statistics_of(bus, "second")["state"] == "active")
        order.add(("first", event.n))

    bus = InMemoryEventBus(storage, worker_count=2)
    bus.subscribe(Moved, lead, name="first", priority=1)
    async with bus:
        await bus.publish_batch([Moved("a", 1), Moved("b", 2)])
    assert sorted(order) == [("first", 1), ("first", 2), ("second", 1), ("second", 2)]
    for n in (1, 2):
        assert list(order).index(("first", n)) < list(order).index(("second", n))


@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}])
async def test_a_delivery_that_ends_after_its_lease_was_lost_is_not_recorded(
    harness: Harness, options: dict[str, Any]
) -> None:
    """Promise 36. The new holder handles the event; progress recorded here would move the other's cursor."""
    harness.handler.gate.clear()
    harness.subscribe(**options)
    await harness.publish(1)
    await harness.publish(2)
    await harness.handler.entered.reach(1)
    consumer = harness.bus._engine.consumers["sub"]
    await harness.storage.release_subscription("sub", consumer.epoch)
    elsewhere = await harness.storage.open_subscription("sub", "now")
    assert elsewhere is not None
    harness.bus._engine.on_lease_lost(consumer)
    harness.handler.gate.set()
    await harness.handler.handled.reach(1)
    await harness.drain()
    [record] = await harness.storage.list_subscriptions()
    assert (record.watermark, record.epoch) == (0, elsewhere.epoch)
    assert harness.bus.get_statistics()["queue_size"] == 0
    await harness.storage.release_subscription("sub", elsewhere.epoch)
    await harness.clock.advance(0.5)
    await harness.drain()
    assert numbers(harness.handler.handled) == [1, 1, 2]


@pytest.mark.parametrize("stored", [False, True])
async def test_workers_cancelled_from_outside_lose_no_stored_events(stored: bool) -> None:
    """When ``asyncio.run`` ends, or a task group fails, a publisher would wake a worker that has ended."""
    storage = InMemoryEventStorage() if stored else None
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event.n)

    bus = InMemoryEventBus(storage)
    bus.subscribe(Moved, handle, name="mover")
    await bus.start()
    await bus.publish(Moved("a", 0))
    await bus.drain(timeout=60)
    workers = [worker.task for worker in bus._engine.workers]
    for task in workers:
        task.cancel()
    # In the iteration of the loop in which they are cancelled, they still count as idle.
    await bus.publish(Moved("a", 1))
    await asyncio.wait(workers)
    await bus.publish(Moved("a", 2))
    assert seen == [0]
    await bus.stop(timeout=0)
    await bus.start()
    await bus.publish(Moved("a", 3))
    await bus.drain(timeout=60)
    assert seen == ([0, 1, 2, 3] if stored else [0, 3])
    await bus.stop()


# -- events that cannot be delivered ------------------------------------------------------------------------


def key_that_raises_for(n: int, when: list[bool]) -> Any:
    """Return an ordering function that raises for one event while ``when`` is true."""

    def key_of(event: Moved) -> str:
        if event.n == n and when[0]:
            raise LookupError("no such key")
        return event.piece

    return key_of


async def test_a_subscription_halted_at_an_undeliverable_event_continues_there_once_fixed(
    harness: Harness,
) -> None:
    """Promise 26. Parked although its subscription says stop, the event would be skipped."""
    when = [True]
    harness.subscribe(ordering=key_that_raises_for(2, when), on_exhausted="stop")
    await harness.publish(1)
    await harness.publish(2, 3)
    await harness.drain()
    assert statistics_of(harness.bus, "sub")["state"] == "halted"
    assert "no such key" in harness.bus.health().reasons[0]
    assert await harness.bus.dead_letters.list() == []
    when[0] = False
    await harness.resume()
    await harness.drain()
    assert numbers(harness.handler.handled) == [1, 2, 3]


async def test_a_replay_halts_at_an_undeliverable_event_and_continues_once_fixed(
    harness: Harness,
) -> None:
    """The rest of the range would be delivered without that event, as if the subscription did not halt."""
    when = [False]
    harness.subscribe(ordering=key_that_raises_for(2, when), on_exhausted="stop")
    await harness.publish(1, 2, 3)
    await harness.drain()
    when[0] = True
    harness.handler.gate.clear()
    await harness.bus.subscriptions.replay("sub", 2, 3)
    await harness.bus._engine.background.wait_until(
        lambda: statistics_of(harness.bus, "sub")["state"] == "halted"
    )
    harness.handler.gate.set()
    await harness.clock.settle()
    assert numbers(harness.handler.handled) == [1, 2, 3]
    when[0] = False
    await harness.resume()
    await harness.handler.handled.reach(5)
    await harness.drain()
    assert numbers(harness.handler.handled) == [1, 2, 3, 2, 3]


async def test_a_higher_number_does_not_wait_for_an_event_undeliverable_to_a_lower_one(
    harness: Harness,
) -> None:
    """Promise 16. The event is never attempted, so waiting for its first attempt would never end."""
    seen: Recorder[int] = Recorder()

    async def follow(event: Moved) -> None:
        seen.add(event.n)

    harness.subscribe(ordering=key_that_raises_for(2, [True]), on_exhausted="park", priority=1)
    harness.bus.subscribe(Moved, follow, name="second", priority=2)
    await harness.drain()
    await harness.publish(1)
    await harness.publish(2, 3)
    await harness.drain()
    assert sorted(seen) == [1, 2, 3]
    assert [letter.event.n for letter in await harness.bus.dead_letters.list()] == [2]


async def test_discarding_a_retry_releases_the_higher_number(harness: Harness) -> None:
    """Promise 16. It would wait for ever for an attempt that was cancelled."""
    seen: Recorder[int] = Recorder()

    async def follow(event: Moved) -> None:
        seen.add(event.n)

    harness.handler.failures = {1: NotRetryableError("never")}
    harness.subscribe(priority=1, on_exhausted="park")
    harness.bus.subscribe(Moved, follow, name="second", priority=2)
    await harness.drain()
    await harness.publish(1)
    await harness.drain()
    harness.handler.gate.clear()
    await harness.publish(2)
    await harness.handler.entered.reach(2)
    [letter] = await harness.bus.dead_letters.list()
    assert await harness.bus.dead_letters.retry(letter.id)  # its retry waits behind the running one
    await harness.bus.dead_letters.discard(letter.id)
    harness.handler.gate.set()
    await harness.publish(3)
    await harness.drain()
    assert numbers(harness.handler.handled) == [2, 3]
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("stored", [False, True])
async def test_a_dead_letter_discarded_while_its_retry_runs_is_counted_once(stored: bool) -> None:
    """Subtracted twice, the number of dead letters would fall below zero, as if there were room."""
    gate, entered = asyncio.Event(), asyncio.Event()
    failing = True

    async def handle(event: Moved) -> None:
        if failing:
            raise ValueError("no")
        entered.set()
        await gate.wait()

    bus = InMemoryEventBus(InMemoryEventStorage() if stored else None)
    bus.subscribe(Moved, handle, name="mover", retry=ONE_ATTEMPT)
    async with bus:
        await bus.publish_batch([Moved("a", 1), Moved("b", 2)])
        await bus.drain(60)
        first, _ = await bus.dead_letters.list()
        failing = False
        await bus.dead_letters.retry(first.id)
        await entered.wait()
        await bus.dead_letters.discard(first.id)
        gate.set()
        await bus.drain(60)
        assert [letter.event.n for letter in await bus.dead_letters.list()] == [2]
        assert bus.get_statistics()["failed_events_count"] == 1


async def test_parking_a_key_also_queues_its_spilled_events(harness: Harness, small_buffers: None) -> None:
    """Promise 25. Events that had no room in memory would overtake the dead letter they must wait behind."""
    harness.subscribe()
    await harness.drain()
    harness.handler.gated, harness.handler.failures = ("A",), {0: NotRetryableError("never")}
    harness.handler.gate.clear()
    for n in range(0, 100, 5):
        await harness.publish(*range(n, n + 4))
        await harness.publish(n + 4, piece="free")
        await harness.handler.handled.reach(n // 5 + 1)
    assert harness.bus._engine.consumers["sub"].spilled > 0
    harness.handler.gate.set()
    await harness.drain()
    assert {event.piece for event in harness.handler.handled} == {"free"}
    [letter] = await harness.bus.dead_letters.list()
    assert letter.queued == 79
    harness.handler.failures.clear()
    await harness.bus.dead_letters.retry(letter.id)
    await harness.handler.handled.reach(100)
    await harness.drain()
    assert [e.n for e in harness.handler.handled if e.piece == "A"] == [n for n in range(100) if n % 5 != 4]


def test_zero_durations_do_not_distort_quantiles() -> None:
    """A coarse clock measures 0.0 for a short handler, which has no place on a scale of powers of two."""
    histogram = Histogram()
    histogram.add(0.0, 50)
    assert quantiles(histogram.counts, 0.5) == [None]
    histogram.add(0.25)
    [middle] = quantiles(histogram.counts, 0.5)
    assert middle is not None
    assert 0.2 < middle < 0.3
