"""The number of dead letters in health and statistics stays correct although counting takes a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.brokers.events import until
from tests.bus.conftest import on_disk as on_disk
from tests.bus.conftest import stored as stored
from tests.bus.samples import Moved
from tests.bus.support import Backend, Recorder, spin_loop, statistics_of
from tests.delivery.harness import GatedHandler, Harness

from pabal import InMemoryEventBus, NotRetryableError
from pabal.ports.storage import EventStorage, SubscriptionRecord
from pabal.testing import VirtualClock


def dead_letter_count(bus: InMemoryEventBus) -> int:
    return int(bus.get_statistics()["failed_events_count"])


def after_next_count(storage: EventStorage, act: Callable[[], Awaitable[object]]) -> None:
    """Run an action after the storage's next count, before the caller gets its result."""
    patched: Any = storage
    count = patched.list_subscriptions

    async def count_and_act() -> list[SubscriptionRecord]:
        patched.list_subscriptions = count
        records: list[SubscriptionRecord] = await count()
        await act()
        return records

    patched.list_subscriptions = count_and_act


async def start_with_two_subscriptions(
    stored: Backend, **options: Any
) -> tuple[InMemoryEventBus, EventStorage, GatedHandler]:
    """Start a bus on which one subscription can be reset while another handles events."""
    bus = await stored.start_bus(worker_count=2)
    assert isinstance(bus, InMemoryEventBus)
    assert bus.storage is not None
    handler, idle = GatedHandler(), GatedHandler()
    bus.subscribe(Moved, handler, name="sub", **options)
    bus.subscribe(Moved, idle, name="idle")
    await bus.drain(60)  # both are open, so that no other bus can open one first
    return bus, bus.storage, handler


async def test_a_dead_letter_parked_during_counting_is_counted(stored: Backend) -> None:
    """Health would say ok, and statistics show none, until the next count: mostly after a restart."""
    bus, storage, handler = await start_with_two_subscriptions(stored)
    handler.failures = {1: NotRetryableError("never")}
    parked: Recorder[int] = Recorder()

    async def park() -> None:
        await bus.publish(Moved("A", 1))
        await handler.entered.reach(1)
        await spin_loop()
        parked.add(dead_letter_count(bus))

    after_next_count(storage, park)
    await bus.subscriptions.reset("idle", "now")
    await bus.drain(60)
    assert parked == [1]
    assert dead_letter_count(bus) == len(await bus.dead_letters.list()) == 1
    assert bus.health().status == "degraded"


async def test_an_unsaved_dead_letter_is_counted_once(stored: Backend) -> None:
    """The storage's count does not include it yet: it would be left out, or counted twice."""
    bus, storage, handler = await start_with_two_subscriptions(stored)
    handler.failures = {1: NotRetryableError("never"), 2: NotRetryableError("never")}
    patched: Any = storage
    save = patched.save_progress
    saving, go_on = asyncio.Event(), asyncio.Event()

    async def save_late(changes: Any) -> Any:
        saving.set()
        await go_on.wait()
        return await save(changes)

    patched.save_progress = save_late
    await bus.publish(Moved("A", 1))
    await saving.wait()
    counting = asyncio.create_task(bus._engine.tally.count())
    await bus.publish(Moved("A", 2))
    await handler.entered.reach(2)
    await spin_loop()
    go_on.set()
    await counting
    await bus.drain(60)
    assert dead_letter_count(bus) == len(await bus.dead_letters.list()) == 2


@pytest.mark.parametrize("action", ["retry", "discard"])
async def test_a_dead_letter_retried_or_discarded_during_counting_is_not_counted(
    stored: Backend, action: str
) -> None:
    """Health would report dead letters that no longer exist, or statistics show fewer than there are."""
    bus, storage, handler = await start_with_two_subscriptions(stored)
    handler.failures = {n: NotRetryableError("never") for n in (1, 2)}
    await bus.publish_batch([Moved("A", 1), Moved("B", 2)])
    await bus.drain(60)
    handler.failures.clear()
    first, _ = await bus.dead_letters.list()
    tasks: list[asyncio.Task[int]] = []

    async def act() -> None:
        tasks.append(asyncio.create_task(getattr(bus.dead_letters, action)(first.id)))
        await spin_loop()

    after_next_count(storage, act)
    await bus.subscriptions.reset("idle", "now")
    await tasks[0]
    await bus.drain(60)
    assert dead_letter_count(bus) == len(await bus.dead_letters.list()) == 1


async def test_a_bus_that_takes_over_a_subscription_counts_its_dead_letters(stored: Backend) -> None:
    """Its health would say ok, and after their retry statistics would show a negative number."""
    first, storage, handler = await start_with_two_subscriptions(stored)
    handler.failures = {n: NotRetryableError("never") for n in (1, 2)}
    second = InMemoryEventBus(stored.storage() if stored.kind == "sqlite" else storage, worker_count=1)
    second_handler = GatedHandler()
    second.subscribe(Moved, second_handler, name="sub")
    async with second:
        await first.publish_batch([Moved("A", 1), Moved("B", 2)])
        await first.drain(60)
        await first.stop()
        await until(lambda: statistics_of(second, "sub")["state"] == "active")
        await second.drain(60)
        assert dead_letter_count(second) == 2
        assert await second.dead_letters.retry("all") == 2
        await second.drain(60)
        assert (dead_letter_count(second), second.health().status) == (0, "ok")


async def test_a_bus_that_never_ran_reports_no_negative_number_of_dead_letters(harness: Harness) -> None:
    """A script that discards dead letters without handling anything would print a negative number."""
    harness.handler.failures = {1: NotRetryableError("never")}
    harness.subscribe(on_exhausted="park")
    await harness.publish(1)
    await harness.drain()
    bus = InMemoryEventBus(harness.storage)
    assert await bus.clear_failed_events() == 1
    assert dead_letter_count(bus) == 0


async def test_the_number_of_queued_events_is_correct_while_they_are_delivered(stored: Backend) -> None:
    """A subscription would halt for lack of room although there is some."""
    bus, _, handler = await start_with_two_subscriptions(stored, on_exhausted="park_key")
    handler.failures = {1: NotRetryableError("never")}
    await bus.publish_batch([Moved("A", n) for n in range(1, 9)])
    await bus.drain(60)
    assert bus._engine.redelivery.waiting == 7
    handler.failures.clear()
    handler.gate.clear()
    assert await bus.dead_letters.retry("all") == 1
    await bus._engine.tally.count()
    assert bus._engine.redelivery.waiting == 7
    handler.gate.set()
    await handler.handled.reach(2)
    handler.gate.clear()
    await bus._engine.tally.count()
    handler.gate.set()
    await bus.drain(60)
    assert bus._engine.redelivery.waiting == 0


@pytest.mark.parametrize("discarded", [False, True])
async def test_a_retry_that_succeeds_during_a_pause_reduces_the_dead_letter_count(
    harness: Harness, discarded: bool
) -> None:
    """Health would report a dead letter that no longer exists, for as long as the subscription is paused."""
    handler = harness.handler
    handler.failures = {n: NotRetryableError("never") for n in (1, 2)}
    harness.subscribe(on_exhausted="park")
    await harness.publish(1, 2)
    await harness.drain()
    handler.failures.clear()
    handler.gate.clear()
    first, _ = await harness.bus.dead_letters.list()
    assert await harness.bus.dead_letters.retry(first.id) == 1
    await handler.entered.reach(3)
    await harness.pause()
    if discarded:
        assert await harness.bus.dead_letters.discard(first.id) == 1
    handler.gate.set()
    await handler.handled.reach(1)
    await harness.clock.settle()
    assert dead_letter_count(harness.bus) == len(await harness.bus.dead_letters.list()) == 1
    await harness.resume()
    await harness.drain()
    assert dead_letter_count(harness.bus) == 1


async def test_dead_letters_of_other_processes_are_counted_within_seconds(on_disk: Backend) -> None:
    """A web process that handles nothing would be degraded, or ok, until its next start."""
    clock, handler = VirtualClock(), GatedHandler()
    worker = await on_disk.start_bus(worker_count=1)
    handler.failures = {n: NotRetryableError("never") for n in (1, 2)}
    worker.subscribe(Moved, handler, name="sub")
    await worker.drain(60)
    web = await on_disk.start_bus(worker_count=1, clock=clock)
    assert isinstance(web, InMemoryEventBus)
    await worker.publish_batch([Moved("A", 1), Moved("B", 2)])
    await worker.drain(60)
    await clock.advance(3.0)
    await web.drain(60)
    assert (dead_letter_count(web), web.health().status) == (2, "degraded")
    assert await worker.clear_failed_events() == 2
    await clock.advance(3.0)
    await web.drain(60)
    assert (dead_letter_count(web), web.health().status) == (0, "ok")
