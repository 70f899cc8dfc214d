"""``bus.dead_letters``: a dead letter is retried, as it is or with an edited payload."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pabal import InMemoryEventBus, NotRetryableError
from pabal.errors import DeadLetterNotFoundError, DecodeError, SubscriptionError, UnserializableEventError
from tests.bus.failing_handler import FailingHandler, park_one, start_failing_bus
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import ONE_ATTEMPT, Backend, Recorder, numbers, spin_loop


async def test_retry_delivers_a_dead_letter_again_and_removes_it_on_success(backend: Backend) -> None:
    """Once the cause is fixed, the event could not be delivered, or its dead letter would remain."""
    bus, handler, letter = await park_one(backend)
    handler.accepts = True
    assert await bus.dead_letters.retry(letter.id) == 1
    await bus.drain(60)
    assert handler.handled == [Moved("rook", 1)]
    assert await bus.dead_letters.list() == []
    with pytest.raises(DeadLetterNotFoundError):
        await bus.dead_letters.get(letter.id)
    assert bus.health().status == "ok"


async def test_a_failed_retry_is_parked_again_with_its_id_and_whole_history(
    backend: Backend,
) -> None:
    """A new id for each failure would lose the history, and break references to the old id."""
    bus, handler, letter = await park_one(backend)
    await bus.dead_letters.retry(letter.id)
    await bus.drain(60)
    [again] = await bus.dead_letters.list()
    assert again.id == letter.id
    assert again.state == "parked"
    assert (handler.calls, len(again.attempts)) == (4, 4)
    assert bus.get_statistics()["failed_events_count"] == 1


async def test_a_second_retry_does_nothing_while_the_first_is_running(backend: Backend) -> None:
    """Promise 27. If two operators press the button, the event must not be handled twice."""
    bus, handler, letter = await park_one(backend)
    handler.accepts, handler.gate = True, asyncio.Event()
    begun = [await bus.dead_letters.retry(letter.id) for _ in range(3)]
    assert begun == [1, 0, 0]
    assert not await bus.dead_letters.edit_and_retry(letter.id, {"piece": "rook", "n": 2})
    assert await bus.dead_letters.retry("all") == 0
    assert (await bus.dead_letters.get(letter.id)).state == "retrying"
    handler.gate.set()
    await bus.drain(60)
    assert numbers(handler.handled) == [1]


async def test_a_dead_letter_retried_while_its_subscription_is_resumed_is_delivered(stored: Backend) -> None:
    """Promise 27. In an unlucky moment it would be marked as being retried, and nothing would retry it."""
    bus, handler = await start_failing_bus(stored)
    for turns in range(30):
        handler.accepts = False
        await bus.publish(Moved("rook", turns))
        await bus.drain(60)
        [letter] = await bus.dead_letters.list()
        handler.accepts = True
        await bus.subscriptions.pause(letter.subscription)
        resuming = asyncio.ensure_future(bus.subscriptions.resume(letter.subscription))
        await spin_loop(turns)
        await bus.dead_letters.retry(letter.id)
        await resuming
        await bus.drain(60)
        assert await bus.dead_letters.list() == [], turns


async def test_a_dead_letter_discarded_while_its_retry_begins_gets_no_attempt(stored: Backend) -> None:
    """The handler would be called with it, although the discard has returned."""
    bus, handler = await start_failing_bus(stored)
    for turns in range(30):
        await bus.publish(Moved("rook", turns))
        await bus.drain(60)
        [letter] = await bus.dead_letters.list()
        handler.gate = asyncio.Event()
        retrying = asyncio.ensure_future(bus.dead_letters.retry(letter.id))
        await spin_loop(turns)
        await bus.dead_letters.discard(letter.id)
        calls = handler.calls
        handler.gate.set()
        await asyncio.gather(retrying, return_exceptions=True)
        await bus.drain(60)
        assert handler.calls == calls, turns


async def test_concurrent_retries_of_one_dead_letter_start_one_delivery(backend: Backend) -> None:
    """Concurrent calls would start several retries, and the event would be handled more than once."""
    bus, handler, letter = await park_one(backend)
    handler.accepts, handler.gate = True, asyncio.Event()
    begun = await asyncio.gather(*(bus.dead_letters.retry(letter.id) for _ in range(10)))
    assert sum(begun) == 1
    handler.gate.set()
    await bus.drain(60)
    assert numbers(handler.handled) == [1]


async def test_edit_and_retry_delivers_the_new_payload_with_the_original_ids(backend: Backend) -> None:
    """Promise 27. Correcting the data is often the only solution; the event keeps its identity."""
    bus, handler = await start_failing_bus(backend)
    event = Moved("rook", 1, correlation_id="c-1")
    await bus.publish(event)
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    handler.accepts = True
    assert await bus.dead_letters.edit_and_retry(letter.id, {"piece": "knight", "n": 5})
    await bus.drain(60)
    [handled] = handler.handled
    assert handled == Moved("knight", 5)
    assert (handled.event_id, handled.correlation_id) == (event.event_id, "c-1")
    assert handled.occurred_at == event.occurred_at
    assert await bus.dead_letters.list() == []


async def test_an_edit_that_does_not_match_the_event_class_changes_nothing(backend: Backend) -> None:
    """A typing error in the edited payload must not lose the dead letter."""
    bus, handler, letter = await park_one(backend)
    with pytest.raises(DecodeError, match=r"n"):
        await bus.dead_letters.edit_and_retry(letter.id, {"piece": "rook", "n": "one"})
    with pytest.raises(DecodeError):
        await bus.dead_letters.edit_and_retry(letter.id, {"n": 1})
    with pytest.raises(UnserializableEventError):
        await bus.dead_letters.edit_and_retry(letter.id, {"piece": object(), "n": 1})
    await bus.drain(60)
    [same] = await bus.dead_letters.list()
    assert (same.state, same.payload, handler.calls) == ("parked", {"piece": "rook", "n": 1}, 2)
    assert await bus.dead_letters.retry(letter.id) == 1
    await bus.drain(60)


async def test_an_edited_payload_is_kept_when_its_retry_fails(backend: Backend) -> None:
    """The dead letter would show another payload than the one that failed."""
    bus, _, letter = await park_one(backend)
    await bus.dead_letters.edit_and_retry(letter.id, {"piece": "rook", "n": 2})
    await bus.drain(60)
    [again] = await bus.dead_letters.list()
    assert (again.id, again.state, again.event.n) == (letter.id, "parked", 2)


async def test_retry_raises_when_the_subscription_has_no_handler_here(backend: Backend) -> None:
    """There is no handler to deliver to: the dead letter would be lost, or in retry for ever."""
    bus = await backend.start_bus()
    handler = FailingHandler()
    subscription = bus.subscribe(NoteTaken, handler, name="sub", retry=ONE_ATTEMPT)
    await bus.publish(NoteTaken(1))
    await bus.drain(60)
    bus.unsubscribe(subscription)
    [letter] = await bus.dead_letters.list()
    with pytest.raises(SubscriptionError, match=r"'sub'.*subscribe under that name"):
        await bus.dead_letters.retry(letter.id)
    assert (await bus.dead_letters.get(letter.id)).state == "parked"


async def test_a_retry_whose_subscription_ends_meanwhile_can_be_made_by_the_next_of_its_name(
    backend: Backend,
) -> None:
    """The dead letter would stay marked as retrying, and no later retry could deliver it."""
    bus, handler, letter = await park_one(backend)
    retry = asyncio.create_task(bus.dead_letters.retry(letter.id))
    await asyncio.sleep(0)
    [subscription] = bus.subscriptions.attached()
    bus.unsubscribe(subscription)
    handler.accepts = True
    bus.subscribe(Moved, handler, name=subscription.name, retry=ONE_ATTEMPT)
    await retry
    await bus.dead_letters.retry("all")
    await bus.drain(60)
    assert handler.handled == [Moved("rook", 1)]
    assert await bus.dead_letters.list() == []


async def test_a_retried_dead_letter_waits_for_the_running_event_of_its_key(backend: Backend) -> None:
    """A retried dead letter must not run beside another event of its key."""
    bus = await backend.start_bus(worker_count=4)
    order: Recorder[str] = Recorder()
    release = asyncio.Event()
    poison = True

    async def handle(event: Moved) -> None:
        if event.n == 1 and poison:
            raise ValueError("poison")
        order.add(f"{event.n} begins")
        if event.n == 2:
            await release.wait()
        order.add(f"{event.n} ends")

    bus.subscribe(Moved, handle, retry=ONE_ATTEMPT)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    poison = False
    await bus.publish(Moved("rook", 2))
    await order.reach(1)
    [letter] = await bus.dead_letters.list()
    await bus.dead_letters.retry(letter.id)
    await spin_loop()
    assert order == ["2 begins"]
    release.set()
    await bus.drain(60)
    assert order == ["2 begins", "2 ends", "1 begins", "1 ends"]


@pytest.mark.parametrize("action", ["retry", "retry all", "discard", "discard all"])
async def test_a_bus_that_stands_by_retries_and_discards_for_the_bus_that_handles_the_subscription(
    stored: Backend, action: str
) -> None:
    """Promise 27. The dead letter would stay in retry, or the events behind it wait, for ever."""
    bus = await stored.start_bus()
    handled: Recorder[int] = Recorder()
    broken = True

    async def handle(event: Moved) -> None:
        if event.n == 1 and broken:
            raise NotRetryableError("no")
        handled.add(event.n)

    bus.subscribe(Moved, handle, name="board", on_exhausted="park_key")
    await bus.publish_batch([Moved("rook", 1), Moved("rook", 2)])
    await bus.drain(60)
    broken = False
    [letter] = await bus.dead_letters.list()
    async with InMemoryEventBus(bus.storage) as other:
        other.subscribe(Moved, handle, name="board", on_exhausted="park_key")
        which: Any = "all" if action.endswith("all") else letter.id
        change = other.dead_letters.retry if action.startswith("retry") else other.dead_letters.discard
        assert await change(which) == 1
        await handled.reach(2 if action.startswith("retry") else 1)
    assert handled == ([1, 2] if action.startswith("retry") else [2])
