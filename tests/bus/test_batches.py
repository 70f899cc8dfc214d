"""Batch handlers: the size of their batches, and the effect of a bad event on its batch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pabal import DeliveryContext, NotRetryableError, RetryPolicy
from tests.bus.samples import Moved, NoteTaken, Ticket
from tests.bus.support import ONE_ATTEMPT, Backend, Recorder, by_piece, numbers, statistics_of

TWICE = RetryPolicy(max_attempts=2, base_delay=0.0)


class Batches:
    """A batch handler that records its batches, and fails for certain numbers."""

    def __init__(self, *poison: int) -> None:
        self.seen: Recorder[list[int]] = Recorder()
        self.handled: list[int] = []
        self._poison = set(poison)

    async def handle(self, events: list[Any]) -> None:
        self.seen.add(numbers(events))
        await asyncio.sleep(0)
        bad = self._poison.intersection(numbers(events))
        if bad:
            raise ValueError(f"cannot handle {sorted(bad)}")
        self.handled += numbers(events)


async def test_a_batch_handler_receives_at_most_its_batch_size_in_publish_order(backend: Backend) -> None:
    """Events would be lost, duplicated or out of order between batches, or a batch would exceed its size."""
    bus = await backend.start_bus()
    batches = Batches()
    bus.subscribe(Moved, batches, batch=10)
    await bus.publish_batch([Moved(f"piece-{n % 3}", n) for n in range(57)])
    await bus.drain(60)
    assert batches.handled == list(range(57))
    assert max(len(batch) for batch in batches.seen) == 10
    assert all(batches.seen)


async def test_a_single_event_does_not_wait_for_a_full_batch(backend: Backend) -> None:
    """A single event must not wait until others fill the batch."""
    bus = await backend.start_bus()
    batches = Batches()
    bus.subscribe(NoteTaken, batches, batch=500)
    await bus.publish(NoteTaken(1))
    await bus.drain(60)
    assert batches.seen == [[1]]


async def test_a_subscription_handles_one_batch_at_a_time(backend: Backend) -> None:
    """Two batches at once would handle events of one aggregate concurrently."""
    bus = await backend.start_bus(worker_count=4)
    inside = 0
    peak = 0

    async def handle(events: list[Any]) -> None:
        nonlocal inside, peak
        inside += 1
        peak = max(peak, inside)
        await asyncio.sleep(0)
        inside -= 1

    bus.subscribe((Moved, NoteTaken), handle, batch=5)
    await bus.publish_batch([Moved(f"piece-{n}", n) if n % 2 else NoteTaken(n) for n in range(60)])
    await bus.drain(60)
    assert peak == 1


async def test_with_an_ordering_function_each_batch_holds_one_key(backend: Backend) -> None:
    """With a key function, each batch holds one key only, and keys run in parallel."""
    bus = await backend.start_bus(worker_count=2)
    entered: Recorder[list[Moved]] = Recorder()
    release = asyncio.Event()

    async def handle(events: list[Moved]) -> None:
        entered.add(events)
        await release.wait()

    bus.subscribe(Moved, handle, batch=10, ordering=lambda event: event.piece)
    await bus.publish_batch([Moved(f"piece-{n % 2}", n) for n in range(8)])
    await entered.reach(2)
    release.set()
    await bus.drain(60)
    assert all(len({event.piece for event in batch}) == 1 for batch in entered)
    handled = by_piece(event for batch in entered for event in batch)
    assert handled == {"piece-0": [0, 2, 4, 6], "piece-1": [1, 3, 5, 7]}


async def test_where_filters_events_within_a_batch(backend: Backend) -> None:
    """Filtered events must not reach the handler, and a batch of only such events must not call it."""
    bus = await backend.start_bus()
    batches = Batches()
    bus.subscribe(Moved, batches, name="even", batch=4, where=lambda event: event.n % 2 == 0 and event.n < 8)
    await bus.publish_batch([Moved("rook", n) for n in range(16)])
    await bus.drain(60)
    assert batches.handled == [0, 2, 4, 6]
    assert all(batches.seen)
    assert (statistics_of(bus, "even")["handled"], statistics_of(bus, "even")["filtered"]) == (4, 12)


async def test_a_sync_batch_handler_receives_the_context_of_its_last_event(backend: Backend) -> None:
    """A handler of batches would get no context, or that of an event in the middle of its batch."""
    bus = await backend.start_bus()
    seen: Recorder[tuple[list[int], str, int]] = Recorder()

    def handle(events: list[Moved], context: DeliveryContext) -> None:
        seen.add((numbers(events), context.event_id, context.attempt))

    bus.subscribe(Moved, handle, batch=3)
    events = [Moved("rook", n) for n in range(3)]
    await bus.publish_batch(events)
    await bus.drain(60)
    assert seen == [([0, 1, 2], events[-1].event_id, 1)]


async def test_a_failed_batch_is_retried_as_a_whole(backend: Backend) -> None:
    """A temporary failure must not split the batch, nor let a later event go first."""
    bus = await backend.start_bus()
    seen: Recorder[list[int]] = Recorder()

    async def fail_once(events: list[Moved]) -> None:
        seen.add(numbers(events))
        if len(seen) == 1:
            raise ConnectionError("passing")

    bus.subscribe(Moved, fail_once, batch=4, retry=TWICE)
    await bus.publish_batch([Moved("rook", n) for n in range(4)])
    await bus.drain(60)
    assert seen == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert await bus.dead_letters.list() == []


@pytest.mark.parametrize("poison", [(0,), (3,), (7,), (2, 5), (0, 7), tuple(range(8))])
async def test_only_the_poison_events_of_a_batch_are_parked(
    backend: Backend, poison: tuple[int, ...]
) -> None:
    """Parking the whole batch would lose its good events; retrying it for ever would stop everything."""
    bus = await backend.start_bus()
    batches = Batches(*poison)
    bus.subscribe(Moved, batches, batch=8, retry=TWICE)
    await bus.publish_batch([Moved("rook", n) for n in range(24)])
    await bus.drain(60)
    assert batches.handled == [n for n in range(24) if n not in poison]
    letters = await bus.dead_letters.list()
    assert [letter.event.n for letter in letters] == list(poison)
    assert all("process died" not in letter.reason for letter in letters)
    assert batches.seen[-1] == list(range(16, 24)), "later batches are whole again"


async def test_events_behind_a_poison_batch_do_not_overtake_it(backend: Backend) -> None:
    """Isolating the bad event takes several attempts; later events must not overtake them."""
    bus = await backend.start_bus(worker_count=4)
    batches = Batches(1)
    bus.subscribe(Moved, batches, batch=4, retry=TWICE)
    await bus.publish_batch([Moved("rook", n) for n in range(4)])
    await batches.seen.reach(1)
    await bus.publish_batch([Moved("rook", n) for n in range(4, 8)])
    await bus.drain(60)
    assert batches.handled == [0, 2, 3, 4, 5, 6, 7]


async def test_a_non_retryable_error_splits_its_batch_at_once(backend: Backend) -> None:
    """Retrying the whole batch cannot help, but its other events deserve an attempt without the bad one."""
    bus = await backend.start_bus()
    calls: Recorder[list[int]] = Recorder()

    async def reject(events: list[Moved]) -> None:
        calls.add(numbers(events))
        if 1 in numbers(events):
            raise NotRetryableError("never")

    bus.subscribe(Moved, reject, batch=3, retry=RetryPolicy(max_attempts=9, base_delay=0))
    await bus.publish_batch([Moved("rook", n) for n in range(3)])
    await bus.drain(60)
    assert calls == [[0, 1, 2], [0], [1], [2]]
    assert [letter.event.n for letter in await bus.dead_letters.list()] == [1]


async def test_an_event_behind_a_discarded_one_of_a_poison_batch_gets_all_its_attempts(
    memory: Backend,
) -> None:
    """It was taken for one of the batch, and parked after its first failure."""
    bus = await memory.start_bus()
    gate, entered = asyncio.Event(), asyncio.Event()
    handled: Recorder[int] = Recorder()
    poison = {1, 2}
    attempts: list[int] = []

    async def handle(events: list[Moved]) -> None:
        [number, *others] = numbers(events)
        if others or number in poison:
            raise NotRetryableError("poison")
        if number == 1:
            entered.set()
            await gate.wait()
        attempts.append(number)
        if attempts.count(3) == 1:
            raise ConnectionError("not yet")
        handled.add(number)

    bus.subscribe(Moved, handle, batch=2, retry=RetryPolicy(max_attempts=2, base_delay=0.01))
    await bus.publish_batch([Moved("rook", 1), Moved("rook", 2)])
    await bus.drain(60)
    _, second = await bus.dead_letters.list()
    poison.clear()
    await bus.dead_letters.retry("all")
    await entered.wait()
    await bus.publish(Moved("rook", 3))
    await bus.dead_letters.discard(second.id)
    gate.set()
    await bus.drain(60)
    assert handled == [1, 3]
    assert await bus.dead_letters.list() == []


async def test_a_poison_batch_halts_the_subscription_at_the_poison_event(backend: Backend) -> None:
    """With ``on_exhausted="stop"``, events before the bad one in its batch are handled; it and the rest are
    not.
    """
    bus = await backend.start_bus()
    batches = Batches(2)
    bus.subscribe(Moved, batches, name="book", batch=4, retry=ONE_ATTEMPT, on_exhausted="stop")
    await bus.publish_batch([Moved("rook", n) for n in range(4)])
    await bus.drain(60)
    assert batches.handled == [0, 1]
    assert statistics_of(bus, "book")["state"] == "halted"
    assert await bus.dead_letters.list() == []


async def test_a_batch_handler_receives_registered_dataclasses(backend: Backend) -> None:
    """Handlers get the objects that were published, never the engine's wrapper."""
    bus = await backend.start_bus()
    seen: Recorder[list[Ticket]] = Recorder()

    async def sell(tickets: list[Ticket]) -> None:
        seen.add(tickets)

    bus.subscribe(Ticket, sell, batch=2)
    await bus.publish_batch([Ticket("A1", ["coat"]), Ticket("A2")])
    await bus.drain(60)
    assert seen == [[Ticket("A1", ["coat"]), Ticket("A2")]]


async def test_catching_up_from_the_log_fills_the_batches(stored: Backend) -> None:
    """Reading the log one event at a time into a batch handler would defeat the purpose of batches."""
    bus = await stored.start_bus()
    await bus.publish_batch([Moved(f"piece-{n % 5}", n) for n in range(1000)])
    batches = Batches()
    bus.subscribe(Moved, batches, batch=100, start="beginning")
    await bus.drain(20)
    assert batches.handled == list(range(1000))
    assert len(batches.seen) <= 20


async def test_a_batch_handler_that_lags_far_behind_gets_every_event_once(stored: Backend) -> None:
    """With more events than fit in memory, the tail must come from disk, in order and without gaps."""
    bus = await stored.start_bus()
    batches = Batches(4321)
    bus.subscribe(Moved, batches, batch=250, retry=ONE_ATTEMPT)
    for start in range(0, 12_000, 3000):
        await bus.publish_batch([Moved(f"piece-{n % 11}", n) for n in range(start, start + 3000)])
    await bus.drain(30)
    assert batches.handled == [n for n in range(12_000) if n != 4321]


async def test_events_published_by_a_batch_handler_have_no_causation_id(backend: Backend) -> None:
    """A batch has many causes; naming only the last one would be wrong."""
    bus = await backend.start_bus()
    seen: Recorder[NoteTaken] = Recorder()

    async def total(events: list[Moved]) -> None:
        await bus.publish(NoteTaken(len(events)))

    async def note(event: NoteTaken) -> None:
        seen.add(event)

    bus.subscribe(Moved, total, batch=10)
    bus.subscribe(NoteTaken, note)
    await bus.publish_batch([Moved("rook", n) for n in range(3)])
    await bus.drain(60)
    assert [(event.n, event.causation_id) for event in seen] == [(3, None)]
