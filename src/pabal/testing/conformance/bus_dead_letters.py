"""A bus and its dead letters: edited, discarded, retried, and queued behind."""

from __future__ import annotations

import asyncio
from typing import Any

from pabal.errors import SubscriptionError
from pabal.testing.clock import VirtualClock
from pabal.testing.conformance.case import (
    StorageFactory,
    case,
    expect_count,
    expect_equal,
    expect_error,
    opened,
)
from pabal.testing.conformance.events import Deposited, Ticked, deposits
from pabal.testing.conformance.running import Handler, running, settled


@case()
async def an_edited_dead_letter_is_handled_as_edited(factory: StorageFactory) -> None:
    """Give the handler the new payload, and never the old one."""
    handler, clock = Handler(), VirtualClock()
    handler.failures = {1: 9}
    options: dict[str, Any] = {"retry_count": 0, "retry": None}
    async with opened(factory) as storage, running(storage, handler, clock, **options) as bus:
        await bus.publish(Deposited("a", 1))
        await settled(bus)
        [letter] = expect_count(1, await bus.dead_letters.list(), "dead letters")
        await bus.dead_letters.edit_and_retry(letter.id, {**letter.payload, "number": 7})
        await settled(bus)
        expect_equal(handler.numbers(), [7], "numbers of the events handled")
        expect_equal(await bus.dead_letters.list(), [], "dead letters after the retry")


@case()
async def editing_a_dead_letter_into_another_key_releases_its_old_key(factory: StorageFactory) -> None:
    """Deliver the queue behind it once the edited event succeeds, or is parked under its new key."""
    handler, clock = Handler(), VirtualClock()
    handler.failures = {1: 9, 11: 9}
    options: dict[str, Any] = {"on_exhausted": "park_key", "retry_count": 0, "retry": None}
    async with opened(factory) as storage, running(storage, handler, clock, **options) as bus:
        await bus.publish_batch([*deposits("a", range(1, 4)), *deposits("b", range(11, 14))])
        await settled(bus)
        first, second = expect_count(2, await bus.dead_letters.list(), "dead letters")
        await bus.dead_letters.edit_and_retry(first.id, {**first.payload, "account": "x", "number": 7})
        await settled(bus)
        expect_equal(handler.numbers("x"), [7], "events of the new key")
        expect_equal(handler.numbers("a"), [2, 3], "events of the old key")
        await bus.dead_letters.edit_and_retry(second.id, {**second.payload, "account": "y"})
        await settled(bus)
        expect_equal(handler.numbers("b"), [12, 13], "events of the old key of a parked event")
        [letter] = expect_count(1, await bus.dead_letters.list(), "dead letters")
        expect_equal(
            (letter.id, letter.key), (second.id, "account/y"), "the dead letter, and the key it blocks now"
        )


@case()
async def discarding_a_dead_letter_releases_its_key(factory: StorageFactory) -> None:
    """Deliver the queue behind it without the discarded event."""
    handler, clock = Handler(), VirtualClock()
    handler.failures = {1: 9}
    options: dict[str, Any] = {"on_exhausted": "park_key", "retry_count": 0, "retry": None}
    async with opened(factory) as storage, running(storage, handler, clock, **options) as bus:
        await bus.publish_batch(deposits("a", range(4)))
        await settled(bus)
        expect_equal(handler.numbers(), [0], "events handled while one is parked")
        expect_equal(await bus.dead_letters.discard("all"), 1, "dead letters discarded")
        await settled(bus)
        expect_equal(handler.numbers(), [0, 2, 3], "events handled after it was discarded")


@case()
async def a_dead_letter_discarded_during_its_retry_is_not_attempted_again(factory: StorageFactory) -> None:
    """Make no further attempt and do not park it again; deliver later events of its key and lane."""
    handler, clock = Handler(), VirtualClock()
    handler.failures = {1: 99, 20: 99}
    async with opened(factory) as storage, running(storage, handler, clock) as bus:
        await bus.publish_batch([Deposited("a", 1), Ticked(20)])
        await settled(bus)
        for _ in range(2):
            await clock.advance(10)
            await settled(bus)
        expect_equal(await bus.dead_letters.retry("all"), 2, "retries begun")
        await settled(bus)
        await bus.publish(Deposited("a", 2))
        await settled(bus)
        expect_equal(
            (handler.attempts.count(1), handler.attempts.count(20)), (4, 4), "attempts before discarding"
        )
        expect_equal(await bus.dead_letters.discard("all"), 2, "dead letters discarded")
        await settled(bus)
        expect_equal(handler.numbers(), [2], "events handled after discarding")
        for _ in range(3):
            await clock.advance(10)
            await settled(bus)
        expect_equal(
            (handler.attempts.count(1), handler.attempts.count(20)), (4, 4), "attempts after discarding"
        )
        expect_equal(await bus.dead_letters.list(), [], "dead letters at the end")
        expect_equal(bus.health().status, "ok", "the health of the bus")
        statistics = bus.get_statistics()
        left = (statistics["queue_size"], statistics["retry_queue_size"])
        expect_equal(left, (0, 0), "deliveries and retries that are left")


@case()
async def a_dead_letter_discarded_while_its_handler_runs_is_not_parked_again(factory: StorageFactory) -> None:
    """Let the running handler end, and neither park nor retry the event it failed on."""
    handler, clock = Handler(), VirtualClock()
    handler.failures = {1: 99}
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handle(event: Any) -> None:
        if handler.attempts:
            entered.set()
            await leave.wait()
        await handler.handle(event)

    async with opened(factory) as storage, running(storage, handle, clock, retry=None, retry_count=0) as bus:
        await bus.publish_batch([Deposited("a", 1)])
        await settled(bus)
        [letter] = expect_count(1, await bus.dead_letters.list(), "dead letters")
        await bus.dead_letters.retry(letter.id)
        await bus.publish(Deposited("a", 2))
        await entered.wait()
        await bus.dead_letters.discard(letter.id)
        leave.set()
        await settled(bus)
        expect_equal(handler.attempts, [1, 1, 2], "attempts made")
        expect_equal(await bus.dead_letters.list(), [], "dead letters at the end")
        expect_equal(bus.get_statistics()["queue_size"], 0, "deliveries that are left")


@case()
async def a_queue_without_its_dead_letter_continues_after_a_restart(factory: StorageFactory) -> None:
    """Deliver what was still queued when the bus stopped, although no dead letter is left to release it."""
    handler, clock = Handler(), VirtualClock()
    handler.failures = {1: 3, 2: 1}
    async with opened(factory) as storage:
        async with running(storage, handler, clock, on_exhausted="park_key") as bus:
            await bus.publish_batch(deposits("a", range(4)))
            await settled(bus)
            for _ in range(2):
                await clock.advance(10)
                await settled(bus)
            expect_equal(await bus.dead_letters.discard("all"), 1, "dead letters discarded")
            await settled(bus)
            expect_equal(handler.numbers(), [0], "events handled while the next one waits for its retry")
        async with running(storage, handler, clock, on_exhausted="park_key") as bus:
            await clock.advance(10)
            await settled(bus)
            expect_equal(handler.numbers(), [0, 2, 3], "events handled after the restart")
            await bus.publish(Deposited("a", 4))
            await settled(bus)
            expect_equal(handler.numbers(), [0, 2, 3, 4], "events handled once the queue is empty")


@case()
async def retrying_all_skips_names_without_a_subscriber(factory: StorageFactory) -> None:
    """Retry the dead letters of names subscribed here and keep the others; retrying one of those raises."""
    handler, gone = Handler(), Handler()
    handler.failures = {1: 1}
    gone.failures = {1: 1}
    options: dict[str, Any] = {"retry_count": 0, "retry": None}
    async with opened(factory) as storage, running(storage, handler, **options) as bus:
        subscription = bus.subscribe(Deposited, gone, name="a-gone-one", retry_count=0)
        await bus.publish(Deposited("a", 1))
        await settled(bus)
        bus.unsubscribe(subscription)
        expect_equal(await bus.dead_letters.retry("all"), 1, "retries begun of two dead letters")
        await settled(bus)
        expect_equal(handler.numbers(), [1], "numbers handled by the name that is subscribed")
        [left] = expect_count(1, await bus.dead_letters.list(), "dead letters")
        expect_equal(
            (left.subscription, left.state), ("a-gone-one", "parked"), "the dead letter that is left"
        )
        call = bus.dead_letters.retry(left.id)
        await expect_error(SubscriptionError, call, "a retry for a name that is not subscribed")
