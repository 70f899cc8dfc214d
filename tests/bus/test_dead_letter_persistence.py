"""Dead letters outlive the run, the subscription and the retry that they belong to."""

from __future__ import annotations

import asyncio

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage, RetryPolicy
from pabal.operations import operations_of
from pabal.ports.operations import DeadLetterFilter
from pabal.ports.storage import DeadLetterRecord
from pabal.ports.telemetry import AttemptFailed
from pabal.testing import VirtualClock
from tests.bus.failing_handler import FailingHandler, start_failing_bus
from tests.bus.samples import Moved, NoteTaken, Packed, Ticket
from tests.bus.support import (
    LIMIT,
    ONE_ATTEMPT,
    Backend,
    Recorder,
    numbers,
    reports_of,
    spin_loop,
    statistics_of,
)
from tests.bus.test_recoveries import RecordingStorage


async def test_dead_letters_and_their_retries_survive_a_restart(stored: Backend) -> None:
    """Yesterday's dead letter can be fixed today; a retry in progress at the stop continues afterwards."""
    bus, handler = await start_failing_bus(stored)
    await bus.publish_batch([Moved("rook", 1), NoteTaken(2)])
    await bus.drain(60)
    one, two = await bus.dead_letters.list()
    handler.gate = asyncio.Event()
    await bus.dead_letters.retry(two.id)
    await bus.stop(timeout=0.05)
    bus = await stored.reopen(bus)
    fixed = FailingHandler()
    fixed.accepts = True
    bus.subscribe((Moved, NoteTaken), fixed, name="sub")
    await bus.start()
    await bus.drain(60)
    assert [type(event).__name__ for event in fixed.handled] == [two.event.__class__.__name__]
    [letter] = await bus.dead_letters.list()
    assert (letter.id, letter.event, len(letter.attempts)) == (one.id, one.event, 2)
    assert bus.get_statistics()["failed_events_count"] == 1
    await bus.dead_letters.retry("all")
    await bus.drain(60)
    assert len(fixed.handled) == 2
    assert statistics_of(bus, "sub")["watermark"] == 2


async def test_mutable_events_and_dataclasses_can_be_dead_letters(backend: Backend) -> None:
    """They are handled differently inside the bus, but must keep their content just as well."""
    bus = await backend.start_bus()
    handler = FailingHandler()
    bus.subscribe((Packed, Ticket), handler, name="sub", retry=ONE_ATTEMPT)
    packed, ticket = Packed(["apple"], {}), Ticket("A1", ["coat"])
    await bus.publish_batch([packed, ticket])
    await bus.drain(60)
    letters = {letter.event_type: letter for letter in await bus.dead_letters.list()}
    assert letters["basket.packed"].event == packed
    assert letters["ticket.sold"].event == ticket
    assert letters["ticket.sold"].payload == {"seat": "A1", "extras": ["coat"]}
    handler.accepts = True
    edited = {"seat": "A2", "extras": ["hat"]}
    assert await bus.dead_letters.edit_and_retry(letters["ticket.sold"].id, edited)
    assert await bus.dead_letters.retry(letters["basket.packed"].id)
    await bus.drain(60)
    assert packed in list(handler.handled)
    assert Ticket("A2", ["hat"]) in list(handler.handled)


async def test_a_retry_interrupted_by_unsubscribing_can_be_started_again(
    backend: Backend,
) -> None:
    """Without a log it would be in progress for ever: neither delivered nor available for another retry."""
    bus = await backend.start_bus(worker_count=1)
    seen: Recorder[int] = Recorder()
    entered, go_on = asyncio.Event(), asyncio.Event()
    failing = True

    async def handle(event: Moved) -> None:
        if event.n == 0 and failing:
            raise ValueError("parked")
        if event.n == 9:
            entered.set()
            await go_on.wait()
        seen.add(event.n)

    subscription = bus.subscribe(Moved, handle, name="board", retry=ONE_ATTEMPT)
    await bus.publish(Moved("rook", 0))
    await bus.drain(30)
    [letter] = await bus.dead_letters.list()
    await bus.publish(Moved("king", 9))
    await entered.wait()
    failing = False
    assert await bus.dead_letters.retry(letter.id) == 1
    bus.unsubscribe(subscription)
    go_on.set()
    bus.subscribe(Moved, handle, name="board", retry=ONE_ATTEMPT)
    await bus.drain(30)
    for remaining in await bus.dead_letters.list():
        assert await bus.dead_letters.retry(remaining.id) == 1
    await bus.drain(30)
    assert await bus.dead_letters.list() == []
    assert 0 in seen


async def test_a_key_stays_parked_when_its_subscription_name_is_subscribed_again(backend: Backend) -> None:
    """The dead letter outlives the subscription; so must its queue, which newer events must not overtake."""
    bus = await backend.start_bus()
    seen: Recorder[int] = Recorder()
    failing = True

    async def handle(event: Moved) -> None:
        if event.n == 0 and failing:
            raise ValueError("parked")
        seen.add(event.n)

    subscription = bus.subscribe(Moved, handle, name="board", retry=ONE_ATTEMPT, on_exhausted="park_key")
    for n in range(3):
        await bus.publish(Moved("rook", n))
    await bus.drain(30)
    bus.unsubscribe(subscription)
    bus.subscribe(Moved, handle, name="board", retry=ONE_ATTEMPT, on_exhausted="park_key")
    await bus.drain(30)
    await bus.publish(Moved("rook", 3))
    await bus.drain(30)
    assert seen == []
    failing = False
    [letter] = await bus.dead_letters.list()
    assert letter.queued == 3
    assert await bus.dead_letters.retry(letter.id) == 1
    await bus.drain(30)
    assert seen == [0, 1, 2, 3]


class BarrierStorage(InMemoryEventStorage):
    """A storage that answers calls about dead letters only once 50 of them are waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[int] = []
        self.all_waiting = asyncio.Event()

    async def _wait_for_all(self, dead_letter_id: int) -> None:
        self.waiting.append(dead_letter_id)
        if len(self.waiting) == 50:
            self.all_waiting.set()
        async with asyncio.timeout(LIMIT):
            await self.all_waiting.wait()

    async def begin_retry(
        self, dead_letter_id: int, payload: bytes | None, now: float
    ) -> DeadLetterRecord | None:
        await self._wait_for_all(dead_letter_id)
        return await super().begin_retry(dead_letter_id, payload, now)

    async def discard_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        await self._wait_for_all(dead_letter_id)
        return await super().discard_dead_letter(dead_letter_id)


@pytest.mark.parametrize("action", ["retry", "discard"])
@pytest.mark.parametrize("by", ["bus", "operator"])
async def test_all_dead_letters_are_retried_or_discarded_concurrently(action: str, by: str) -> None:
    """With a commit for each, a hundred thousand would take minutes, while handlers wait for the disk."""
    storage = BarrierStorage()
    bus = InMemoryEventBus(storage)
    handler = FailingHandler()
    bus.subscribe(Moved, handler, name="sub", retry=ONE_ATTEMPT)
    await bus.start()
    await bus.publish_batch([Moved("rook", n) for n in range(50)])
    await bus.drain(60)
    handler.accepts = True
    if by == "bus":
        assert await getattr(bus.dead_letters, action)("all") == 50
        await bus.drain(60)
    await bus.stop()
    if by == "operator":
        acted = await getattr(operations_of(storage), f"{action}_matching")(DeadLetterFilter())
        assert (acted.count, acted.skipped) == (50, 0)
        async with bus:
            await bus.drain(60)
    assert numbers(handler.handled) == (list(range(50)) if action == "retry" else [])
    assert (await storage.list_dead_letters(), len(storage.waiting)) == ([], 50)


async def test_a_cancelled_retry_all_still_delivers_the_dead_letters_it_has_marked() -> None:
    """Cancelled, as by a timeout, it would leave marked dead letters undelivered until the next start."""
    storage = BarrierStorage()
    handler = FailingHandler()
    async with InMemoryEventBus(storage) as bus:
        bus.subscribe(Moved, handler, name="sub", retry=ONE_ATTEMPT)
        await bus.publish_batch([Moved("rook", n) for n in range(49)])
        await bus.drain(60)
        handler.accepts = True
        retrying = asyncio.create_task(bus.dead_letters.retry("all"))
        await spin_loop()
        retrying.cancel()
        await asyncio.wait([retrying])
        storage.all_waiting.set()
        await handler.handled.reach(49)
    assert retrying.cancelled()
    assert await storage.list_dead_letters() == []


async def test_a_failure_saved_after_its_dead_letter_was_discarded_leaves_no_retry() -> None:
    """The subscription would show a retry for ever, and never again take the fast path."""
    storage, handler, clock = RecordingStorage(), FailingHandler(), VirtualClock()
    bus = InMemoryEventBus(storage, clock=clock)
    failed = reports_of(bus, AttemptFailed)
    bus.subscribe(Moved, handler, name="sub", retry=RetryPolicy(max_attempts=2, base_delay=20.0))
    async with bus:
        await bus.publish(Moved("rook", 1))
        await failed.reach(1)
        await clock.advance(30)
        await bus.drain(60)
        [letter] = await bus.dead_letters.list()
        storage.gate.clear()
        assert await bus.dead_letters.retry(letter.id) == 1
        await storage.held.reach(1)
        await bus.subscriptions.pause("sub")
        await bus.dead_letters.discard(letter.id)
        storage.gate.set()
        await bus.subscriptions.resume("sub")
        await bus.drain(60)
        assert len(storage.retries) == 2
        assert statistics_of(bus, "sub")["retrying"] == 0
        [record] = await bus.subscriptions.list()
        assert record.retries == 0
