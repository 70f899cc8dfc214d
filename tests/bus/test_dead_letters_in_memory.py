"""Dead letters of a bus without a log outlive the subscription whose handler failed, and a stop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from pabal import BaseEventBus, NotRetryableError, Subscription
from pabal.delivery.dead_letters import MemoryDeadLetters
from pabal.ports.telemetry import EventDropped, SubscriptionHalted
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import Backend, GatedHandler, numbers, reports_of, spin_loop, statistics_of


class _ContextHandler(GatedHandler):
    """A handler with a context, which workers do not call on the fast path."""

    async def handle(self, event: Any, context: Any) -> None:  # type: ignore[override]
        await super().handle(event)


@pytest.fixture(params=[GatedHandler, _ContextHandler])
def handler(request: pytest.FixtureRequest) -> GatedHandler:
    """Return a handler that fails for event 1."""
    made: GatedHandler = request.param()
    made.poison = {1}
    return made


def _subscribe(bus: BaseEventBus, handler: GatedHandler, **options: Any) -> Subscription:
    options.setdefault("on_exhausted", "park_key")
    return bus.subscribe(Moved, handler, name="mover", **options)


async def _park_first_of_three(bus: BaseEventBus, handler: GatedHandler) -> tuple[Subscription, int]:
    """Publish three events of one key, of which the first is parked; return its dead letter's id, too."""
    subscription = _subscribe(bus, handler)
    await bus.publish_batch([Moved("A", n) for n in (1, 2, 3)])
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    assert letter.queued == 2
    return subscription, letter.id


async def _retry_until_running(bus: BaseEventBus, handler: GatedHandler, letter: int) -> None:
    """Retry a dead letter, and return while its handler waits at the gate."""
    handler.gate.clear()
    entered = len(handler.entered)
    await bus.dead_letters.retry(letter)
    await handler.entered.reach(entered + 1)


async def _end_during_good_retry(bus: BaseEventBus, handler: GatedHandler) -> int:
    """End a subscription while its handler, which now succeeds, runs for a dead letter; return its id."""
    subscription, letter = await _park_first_of_three(bus, handler)
    handler.poison.clear()
    await _retry_until_running(bus, handler, letter)
    bus.unsubscribe(subscription)
    return letter


async def test_a_dead_letter_handled_after_its_subscription_ended_is_gone(
    memory: Backend, handler: GatedHandler
) -> None:
    """Promise 27. It would be listed as failed, and could be handled again by the next of its name."""
    bus = await memory.start_bus()
    await _end_during_good_retry(bus, handler)
    handler.gate.set()
    await handler.handled.reach(1)
    await bus.drain(60)
    assert await bus.dead_letters.list() == []
    assert bus.get_statistics()["failed_events_count"] == 0
    _subscribe(bus, handler)
    await bus.publish(Moved("A", 4))
    await bus.drain(60)
    assert numbers(handler.handled) == [1, 2, 3, 4]


async def test_the_next_subscription_of_a_name_waits_for_a_retry_that_still_runs(
    memory: Backend, handler: GatedHandler
) -> None:
    """Promises 25 and 27. It would overtake the dead letter, or handle it a second time."""
    bus = await memory.start_bus()
    letter = await _end_during_good_retry(bus, handler)
    following = GatedHandler()
    _subscribe(bus, following)
    assert await bus.dead_letters.retry(letter) == 0
    await bus.publish(Moved("A", 4))
    await spin_loop()
    assert numbers(following.handled) == []
    handler.gate.set()
    await bus.drain(60)
    assert numbers(handler.handled) == [1]
    assert numbers(following.handled) == [2, 3, 4]
    assert await bus.dead_letters.list() == []
    assert bus.health().status == "ok"


async def test_a_dead_letter_that_fails_after_its_subscription_ended_can_be_retried_by_the_next(
    memory: Backend, handler: GatedHandler
) -> None:
    """Promise 27. It would stay marked as retrying, and nobody would deliver it."""
    bus = await memory.start_bus()
    subscription, letter = await _park_first_of_three(bus, handler)
    await _retry_until_running(bus, handler, letter)
    bus.unsubscribe(subscription)
    following = GatedHandler()
    _subscribe(bus, following)
    handler.gate.set()
    await bus.drain(60)
    assert (await bus.dead_letters.get(letter)).state == "parked"
    assert await bus.dead_letters.retry(letter) == 1
    await bus.drain(60)
    assert numbers(handler.handled) == []
    assert numbers(following.handled) == [1, 2, 3]


async def test_a_retry_that_a_stop_cancels_leaves_its_dead_letter_to_the_next_start(
    memory: Backend, handler: GatedHandler
) -> None:
    """Promise 27. It would stay marked as retrying, also if its subscription had ended before the stop."""
    bus = await memory.start_bus()
    letter = await _end_during_good_retry(bus, handler)
    await bus.stop(timeout=0)
    assert (await bus.dead_letters.get(letter)).state == "parked"
    handler.gate.set()
    _subscribe(bus, handler)
    await bus.start()
    assert await bus.dead_letters.retry(letter) == 1
    await bus.drain(60)
    assert numbers(handler.handled) == [1, 2, 3]


async def test_a_dead_letter_discarded_while_an_ended_subscription_retries_it_is_counted_once(
    memory: Backend, handler: GatedHandler
) -> None:
    """Counted twice, it would hide another dead letter; its key must not be released twice."""
    bus = await memory.start_bus()
    letter = await _end_during_good_retry(bus, handler)
    following = GatedHandler()
    following.poison = {2}
    _subscribe(bus, following)
    await bus.dead_letters.discard(letter)
    await following.entered.reach(1)
    await spin_loop()
    handler.gate.set()
    await bus.drain(60)
    [second] = await bus.dead_letters.list()
    assert (second.event.n, second.queued) == (2, 1)
    assert bus.get_statistics()["failed_events_count"] == 1
    assert numbers(following.handled) == []


async def test_events_behind_a_dead_letter_discarded_while_nobody_subscribes_are_delivered(
    memory: Backend, handler: GatedHandler
) -> None:
    """Promise 25. They would wait for ever, behind nothing, and newer events would overtake them."""
    bus = await memory.start_bus()
    subscription, letter = await _park_first_of_three(bus, handler)
    bus.unsubscribe(subscription)
    await bus.dead_letters.discard(letter)
    _subscribe(bus, handler)
    await bus.publish(Moved("A", 4))
    await bus.drain(60)
    assert numbers(handler.handled) == [2, 3, 4]


async def test_events_behind_a_dead_letter_discarded_while_the_bus_is_stopped_are_delivered(
    memory: Backend, handler: GatedHandler
) -> None:
    """Promise 25. They would be put into lanes that the start empties, and be lost without a report."""
    bus = await memory.start_bus()
    _, letter = await _park_first_of_three(bus, handler)
    await bus.stop()
    await bus.dead_letters.discard(letter)
    await bus.start()
    await bus.publish(Moved("A", 4))
    await bus.drain(60)
    assert numbers(handler.handled) == [2, 3, 4]


async def test_events_behind_a_dead_letter_handled_at_the_end_of_a_stop_are_delivered_after_a_start(
    memory: Backend,
) -> None:
    """Promise 25. Released while nothing more is begun, they would be lost with the lanes."""
    failed: list[int] = []
    handled: list[int] = []

    async def finish_when_cancelled(event: Moved) -> None:
        if not failed:
            failed.append(event.n)
            raise NotRetryableError("not yet")
        with suppress(asyncio.CancelledError):
            if event.n == 1:
                await asyncio.Event().wait()
        handled.append(event.n)

    bus = await memory.start_bus()
    bus.subscribe(Moved, finish_when_cancelled, on_exhausted="park_key")
    await bus.publish_batch([Moved("A", n) for n in (1, 2, 3)])
    await bus.drain(60)
    await bus.dead_letters.retry("all")
    await spin_loop()
    await bus.stop(timeout=0)
    assert handled == [1]
    assert await bus.dead_letters.list() == []
    await bus.start()
    await bus.drain(60)
    assert handled == [1, 2, 3]


async def test_events_behind_a_dead_letter_discarded_while_their_subscription_is_halted_are_delivered(
    memory: Backend, handler: GatedHandler
) -> None:
    """Promises 19 and 25. They would be dropped, as only what is published during the halt may be."""
    bus = await memory.start_bus()
    bus._engine.dead_letters = bus.dead_letters._store = MemoryDeadLetters(limit=3)
    _, letter = await _park_first_of_three(bus, handler)
    dropped = reports_of(bus, EventDropped)
    await bus.publish(Moved("A", 4))
    await bus.drain(60)
    assert statistics_of(bus, "mover")["state"] == "halted"
    await bus.dead_letters.discard(letter)
    await bus.resume("mover")
    await bus.publish(Moved("A", 5))
    await bus.drain(60)
    assert numbers(handler.handled) == [2, 3, 5]
    assert len(dropped) == 1


async def test_a_dead_letter_handled_after_its_subscription_halted_is_gone(
    memory: Backend, handler: GatedHandler
) -> None:
    """Promise 27. Its handler ran before the halt; retried after the resumption, it would run twice."""
    bus = await memory.start_bus()
    bus._engine.dead_letters = bus.dead_letters._store = MemoryDeadLetters(limit=3)
    _, letter = await _park_first_of_three(bus, handler)
    handler.poison.clear()
    await _retry_until_running(bus, handler, letter)
    halted = reports_of(bus, SubscriptionHalted)
    await bus.publish(Moved("A", 4))
    await halted.reach(1)
    handler.gate.set()
    await handler.handled.reach(1)
    assert await bus.resume("mover")
    assert await bus.dead_letters.retry("all") == 0
    await bus.drain(60)
    assert numbers(handler.handled) == [1, 2, 3]


async def test_a_retry_that_halts_its_subscription_leaves_a_dead_letter_that_can_be_retried(
    memory: Backend, handler: GatedHandler
) -> None:
    """Promise 27. It would stay marked as retrying, although nothing retries it any more."""
    bus = await memory.start_bus()
    subscription, letter = await _park_first_of_three(bus, handler)
    bus.unsubscribe(subscription)
    _subscribe(bus, handler, on_exhausted="stop")
    await bus.dead_letters.retry(letter)
    await bus.drain(60)
    assert statistics_of(bus, "mover")["state"] == "halted"
    assert (await bus.dead_letters.get(letter)).state == "parked"
    handler.poison.clear()
    await bus.resume("mover")
    assert await bus.dead_letters.retry(letter) == 1
    await bus.drain(60)
    assert numbers(handler.handled) == [1, 2, 3]


async def test_a_retry_whose_key_cannot_be_found_halts_and_leaves_a_dead_letter_that_can_be_retried(
    memory: Backend, handler: GatedHandler
) -> None:
    """Promise 27. It never reaches a lane, so emptying the lanes would not call its retry off."""
    bus = await memory.start_bus()
    subscription, letter = await _park_first_of_three(bus, handler)
    bus.unsubscribe(subscription)

    def refuse(event: Moved) -> str:
        if event.piece == "A":
            raise NotRetryableError("no key")
        return event.piece

    wrong = _subscribe(bus, handler, on_exhausted="stop", ordering=refuse)
    handler.gate.clear()
    await bus.publish(Moved("B", 9))
    await handler.entered.reach(2)
    await bus.dead_letters.retry(letter)
    assert statistics_of(bus, "mover")["state"] == "halted"
    handler.gate.set()
    bus.unsubscribe(wrong)
    handler.poison.clear()
    _subscribe(bus, handler)
    assert await bus.dead_letters.retry(letter) == 1
    await bus.drain(60)
    assert numbers(handler.handled) == [9, 1, 2, 3]


async def test_a_retry_that_finds_its_subscription_about_to_halt_is_called_off(
    memory: Backend, handler: GatedHandler
) -> None:
    """It would wait in a lane that nobody empties: ``drain`` would hang, and no later retry be possible."""
    bus = await memory.start_bus(worker_count=1)
    bus._engine.dead_letters = bus.dead_letters._store = MemoryDeadLetters(limit=3)
    _, letter = await _park_first_of_three(bus, handler)
    busy = GatedHandler()
    busy.gate.clear()
    bus.subscribe(NoteTaken, busy)
    await bus.publish(NoteTaken(0))
    await busy.entered.reach(1)
    await bus.publish(Moved("A", 4))  # there is no room for it, which nobody has noticed yet
    await bus.dead_letters.retry(letter)
    assert statistics_of(bus, "mover")["state"] == "halted"
    busy.gate.set()
    await bus.drain(60)
    assert (await bus.dead_letters.get(letter)).state == "parked"
    handler.poison.clear()
    await bus.resume("mover")
    assert await bus.dead_letters.retry(letter) == 1
    await bus.drain(60)
    assert numbers(handler.handled) == [1, 2, 3]


async def test_a_retry_that_a_stop_overtakes_leaves_its_dead_letter_parked(
    memory: Backend, handler: GatedHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 27. It would be put into a lane of the stopped bus, and look as if it were being retried."""
    bus = await memory.start_bus()
    _, letter = await _park_first_of_three(bus, handler)
    store = bus.dead_letters._store
    begin, stopped = store.begin_retry, asyncio.Event()

    async def begin_after_stop(*arguments: Any) -> Any:
        await stopped.wait()
        return await begin(*arguments)

    monkeypatch.setattr(store, "begin_retry", begin_after_stop)
    retry = asyncio.create_task(bus.dead_letters.retry(letter))
    await spin_loop()
    await bus.stop()
    stopped.set()
    await retry
    assert (await bus.dead_letters.get(letter)).state == "parked"
    assert bus.get_statistics()["queue_size"] == 0
