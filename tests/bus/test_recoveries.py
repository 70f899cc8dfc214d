"""A delivery that failed and then succeeded keeps a record of its failed attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from pabal import BaseEventBus, InMemoryEventBus, InMemoryEventStorage, RetryPolicy
from pabal.errors import StorageUnavailableError
from pabal.ports.inspection import DeliveryRecord
from pabal.ports.storage import PendingRetry, Progress, RecoveredDelivery
from pabal.ports.telemetry import AttemptFailed, StorageTrouble
from pabal.testing import VirtualClock
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import RETRY_AT_ONCE, Backend, Recorder, reports_of

LATER = RetryPolicy(max_attempts=4, base_delay=20.0, multiplier=1.0, jitter=0.0)


class FlakyHandler:
    """A handler that fails for each event ``fails`` times."""

    def __init__(self, fails: int) -> None:
        self.fails = fails
        self.calls: dict[int, int] = {}
        self.handled: Recorder[int] = Recorder()

    async def handle(self, event: Moved | NoteTaken) -> None:
        call = self.calls[event.n] = self.calls.get(event.n, 0) + 1
        if call <= self.fails:
            raise LookupError(f"call {call} on {event.n}")
        self.handled.add(event.n)


class RecordingStorage(InMemoryEventStorage):
    """A storage that records saved progress, and delays saves while ``gate`` is not set, or fails them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.held: Recorder[None] = Recorder()
        self.failing = False
        self.retries: list[PendingRetry] = []
        self.recovered: list[RecoveredDelivery] = []

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        if not self.gate.is_set():
            self.held.add(None)
            await self.gate.wait()
        if self.failing:
            raise StorageUnavailableError(path="events.db", reason="the disk is full")
        for change in changes:
            self.retries += change.retries
            self.recovered += change.recovered
        return await super().save_progress(changes)


async def deliveries(bus: BaseEventBus, position: int | None) -> list[DeliveryRecord]:
    storage: Any = bus.storage
    await bus.drain(60, retries=False)
    found: list[DeliveryRecord] = await storage.deliveries_at(position)
    return found


async def test_a_retry_that_succeeds_after_a_restart_keeps_its_failed_attempts(
    stored: Backend, clock: VirtualClock
) -> None:
    """The reason for a delay could not be found: the event would show as handled, and nothing more."""
    handler = FlakyHandler(fails=2)
    bus = stored.make_bus(clock=clock)
    bus.subscribe(Moved, handler, name="book", retry=LATER)
    failed = reports_of(bus, AttemptFailed)
    await bus.start()
    receipt = await bus.publish(Moved("rook", 7))
    await failed.reach(1)
    [before] = await deliveries(bus, receipt.position)
    assert (before.state, before.attempts, before.finished_at) == ("retrying", 1, None)

    bus = await stored.reopen(bus, clock=clock)
    bus.subscribe(Moved, handler, name="book", retry=LATER)
    failed = reports_of(bus, AttemptFailed)
    await bus.start()
    await clock.advance(20)
    await failed.reach(1)
    await clock.advance(20)
    await handler.handled.reach(1)
    [record] = await deliveries(bus, receipt.position)
    assert (record.subscription, record.state, record.attempts) == ("book", "finished", 3)
    assert record.finished_at == clock.time()
    assert [one.attempt for one in record.failures] == [1, 2]
    times = [datetime.fromtimestamp(clock.time() - ago, UTC) for ago in (40, 20)]
    assert [one.failed_at for one in record.failures] == times
    assert [one.message for one in record.failures] == ["call 1 on 7", "call 2 on 7"]
    assert all("raise LookupError" in one.traceback for one in record.failures)

    bus = await stored.reopen(bus, clock=clock)
    bus.subscribe(Moved, handler, name="book", retry=LATER)
    await bus.start()
    assert await deliveries(bus, receipt.position) == [record]


async def test_a_retry_that_succeeds_before_the_first_save_keeps_its_failed_attempts() -> None:
    """A retry without delay is quicker than a disk: the most common failures would leave no trace."""
    storage, handler = RecordingStorage(), FlakyHandler(fails=2)
    bus = InMemoryEventBus(storage)
    bus.subscribe((Moved, NoteTaken), handler, name="book", retry=RETRY_AT_ONCE)
    async with bus:
        storage.gate.clear()
        handler.fails = 0
        await bus.publish(NoteTaken(1))
        await storage.held.reach(1)  # from here on, every change waits for the next save
        handler.fails = 2
        receipt = await bus.publish(Moved("rook", 2))
        await handler.handled.reach(2)
        storage.gate.set()
        [record] = await deliveries(bus, receipt.position)
    assert storage.retries == []
    assert (record.state, record.attempts) == ("finished", 3)
    assert [one.message for one in record.failures] == ["call 1 on 2", "call 2 on 2"]


@pytest.mark.parametrize("on_exhausted", ["park", "park_key"])
async def test_a_dead_letter_retried_successfully_keeps_all_its_failed_attempts(
    stored: Backend, on_exhausted: Any
) -> None:
    """The reason for the failures would be lost with the dead letter."""
    handler = FlakyHandler(fails=3)
    bus = await stored.start_bus()
    twice = RetryPolicy(max_attempts=2, base_delay=0.0)
    bus.subscribe(Moved, handler, name="book", retry=twice, on_exhausted=on_exhausted)
    first = await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    handler.calls[2] = handler.fails  # the next one of its key succeeds at once
    second = await bus.publish(Moved("rook", 2))
    await bus.drain(60)
    assert await bus.dead_letters.retry(letter.id) == 1
    await bus.drain(60)
    [record] = await deliveries(bus, first.position)
    assert (record.state, record.attempts, record.dead_letter_id) == ("finished", 4, None)
    assert [one.attempt for one in record.failures] == [1, 2, 1]
    assert [one.message for one in record.failures] == [f"call {n} on 1" for n in (1, 2, 3)]
    assert await deliveries(bus, second.position) == [DeliveryRecord("book", "finished")]


async def test_a_discarded_dead_letter_leaves_no_failed_attempts(stored: Backend) -> None:
    """The record would look as if a retry had succeeded."""
    handler = FlakyHandler(fails=1)
    bus = await stored.start_bus()
    bus.subscribe(Moved, handler, name="book", retry=RetryPolicy(max_attempts=1))
    receipt = await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    await bus.dead_letters.discard("all")
    assert await deliveries(bus, receipt.position) == [DeliveryRecord("book", "finished")]


async def test_every_event_of_a_failed_batch_keeps_its_failed_attempt(stored: Backend) -> None:
    """A batch is retried as a whole, so all of its events were late."""
    calls: Recorder[int] = Recorder()

    async def handle(events: list[Moved]) -> None:
        calls.add(len(events))
        if len(calls) == 1:
            raise LookupError("not now")

    bus = await stored.start_bus()
    bus.subscribe(Moved, handle, name="book", retry=RETRY_AT_ONCE, batch=10)
    receipts = await bus.publish_batch([Moved("rook", n) for n in range(3)])
    await bus.drain(60)
    assert sum(calls) == 3 + calls[0]
    records = [(await deliveries(bus, receipt.position))[0] for receipt in receipts]
    assert [one.state for one in records] == ["finished"] * 3
    late, prompt = records[: calls[0]], records[calls[0] :]
    assert [(one.attempts, len(one.failures)) for one in late] == [(2, 1)] * len(late)
    assert [one.attempts for one in prompt] == [0] * len(prompt)


async def test_a_recovery_during_failing_saves_is_recorded_once() -> None:
    """Changes that could not be saved are saved later, and must appear exactly once."""
    storage, handler, clock = RecordingStorage(), FlakyHandler(fails=1), VirtualClock()
    bus = InMemoryEventBus(storage, clock=clock)
    failed, trouble = reports_of(bus, AttemptFailed), reports_of(bus, StorageTrouble)
    bus.subscribe(Moved, handler, name="book", retry=RETRY_AT_ONCE)
    async with bus:
        storage.failing = True
        first = await bus.publish(Moved("rook", 1))
        await failed.reach(1)
        await clock.advance(0)
        await handler.handled.reach(1)
        await trouble.reach(1)
        second = await bus.publish(Moved("king", 2))
        await failed.reach(2)
        await clock.advance(0)
        await handler.handled.reach(2)
        storage.failing = False
        await clock.advance(10)
        for receipt in (first, second):
            [record] = await deliveries(bus, receipt.position)
            assert (record.state, record.attempts, len(record.failures)) == ("finished", 2, 1)
    assert [one.position for one in storage.recovered] == [first.position, second.position]


async def test_a_delivery_that_never_failed_stores_no_attempts() -> None:
    """A row for each delivery would bring back the cost that the cursor avoids."""
    storage, handler = RecordingStorage(), FlakyHandler(fails=0)
    async with InMemoryEventBus(storage) as bus:
        bus.subscribe(Moved, handler, name="book")
        await bus.publish_batch([Moved(f"p{n}", n) for n in range(50)])
        await bus.drain(60)
    assert len(handler.handled) == 50
    assert (storage.retries, storage.recovered) == ([], [])
