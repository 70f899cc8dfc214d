"""A bus on the storage: events are handled, in order, despite failures and restarts."""

from __future__ import annotations

import asyncio
from typing import Any

from pabal.bus.in_memory import InMemoryEventBus
from pabal.testing.clock import VirtualClock
from pabal.testing.conformance.case import StorageFactory, case, check, expect_count, expect_equal, opened
from pabal.testing.conformance.events import Audited, Deposited, Ticked, deposits
from pabal.testing.conformance.running import Handler, running, settled


@case()
async def published_events_are_stored_and_handled(factory: StorageFactory) -> None:
    """Return the position from publish, handle every event once, and move the cursor to the head."""
    handler = Handler()
    async with opened(factory) as storage, running(storage, handler) as bus:
        receipt = await bus.publish(Deposited("a", 0))
        found = await storage.get_event(receipt.event_id)
        expect_equal(found, Deposited("a", 0), "the event in the storage when publish returned")
        receipts = await bus.publish_batch([Deposited("b", 1), Ticked(2), Audited("a", 3)])
        check(all(one.position for one in receipts), f"each receipt must have a position: {receipts}")
        await settled(bus)
        expect_equal(sorted(handler.numbers()), [0, 1, 2, 3], "numbers of the events handled")
        [record] = expect_count(1, await storage.list_subscriptions(), "subscriptions")
        head = await storage.head()
        expect_equal((record.watermark, record.frontier), (head, head), "the saved cursor after draining")


@case()
async def a_restart_neither_repeats_nor_skips_events(factory: StorageFactory) -> None:
    """After a restart, deliver the events published while no bus ran, and none that was finished."""
    handler = Handler()
    async with opened(factory) as storage:
        async with running(storage, handler) as bus:
            await bus.publish_batch(deposits("a", range(3)))
            await settled(bus)
        await storage.store_events(deposits("a", range(3, 6)))
        async with running(storage, handler) as bus:
            await bus.publish(Deposited("a", 6))
            await settled(bus)
        expect_equal(handler.numbers(), list(range(7)), "numbers of the events handled over two runs")


@case()
async def order_holds_per_aggregate_across_failures(factory: StorageFactory) -> None:
    """Hold back the events of an aggregate while an earlier one waits for a retry, and no others."""
    handler, clock = Handler(), VirtualClock()
    handler.failures = {1: 2, 13: 1}
    async with opened(factory) as storage, running(storage, handler, clock) as bus:
        events = [
            Deposited(account, number + at) for number in range(5) for at, account in ((0, "a"), (10, "b"))
        ]
        await bus.publish_batch(events)
        await settled(bus)
        expect_equal(handler.numbers("a"), [0], "events of the first account before its retry")
        expect_equal(handler.numbers("b"), [10, 11, 12], "events of the second account before its retry")
        await clock.advance(10)
        await settled(bus)
        expect_equal(
            handler.numbers("b"), [10, 11, 12, 13, 14], "events of the second account after its retry"
        )
        await clock.advance(10)
        await settled(bus)
        expect_equal(handler.numbers("a"), [0, 1, 2, 3, 4], "events of the first account after two retries")
        expect_equal(handler.attempts.count(1), 3, "attempts on the event that failed twice")


@case()
async def a_retry_keeps_its_due_time_across_a_restart(factory: StorageFactory) -> None:
    """Continue counting attempts after a restart, and make the next one at the time it was due."""
    handler, clock = Handler(), VirtualClock()
    handler.failures = {1: 99}
    async with opened(factory) as storage:
        async with running(storage, handler, clock) as bus:
            await bus.publish(Deposited("a", 1))
            await settled(bus)
        await clock.advance(4)
        async with running(storage, handler, clock) as bus:
            await clock.advance(5)
            await settled(bus)
            expect_equal(handler.attempts, [1], "attempts 9 s after the first one failed")
            await clock.advance(1.5)
            await settled(bus)
            expect_equal(handler.attempts, [1, 1], "attempts 10.5 s after the first one failed")
        async with running(storage, handler, clock) as bus:
            await clock.advance(10)
            await settled(bus)
            expect_equal(handler.attempts, [1, 1, 1], "attempts after the second retry")
            [letter] = expect_count(1, await bus.dead_letters.list(), "dead letters")
            expect_equal(
                [failure.attempt for failure in letter.attempts],
                [1, 2, 3],
                "attempts in the dead letter",
            )


@case()
async def a_parked_event_does_not_hold_up_others(factory: StorageFactory) -> None:
    """Park an event after its last attempt, finish all others, and move the watermark to the head."""
    handler, clock = Handler(), VirtualClock()
    handler.failures = {2: 3}
    async with opened(factory) as storage, running(storage, handler, clock) as bus:
        await bus.publish_batch(deposits("a", range(5)))
        await settled(bus)
        for _ in range(2):
            await clock.advance(10)
            await settled(bus)
        expect_equal(handler.numbers(), [0, 1, 3, 4], "numbers of the events handled")
        [letter] = expect_count(1, await bus.dead_letters.list(), "dead letters")
        expect_equal((letter.event, letter.subscription), (Deposited("a", 2), "sub"), "the dead letter")
        [record] = expect_count(1, await storage.list_subscriptions(), "subscriptions")
        expect_equal(
            (record.watermark, record.parked),
            (await storage.head(), 1),
            "the watermark and the number of parked events",
        )


@case()
async def events_queued_behind_a_parked_one_follow_in_order(factory: StorageFactory) -> None:
    """Queue later events of the key, across a restart too, and deliver them once the first succeeds."""
    handler, clock = Handler(), VirtualClock()
    handler.failures = {1: 3}
    async with opened(factory) as storage:
        async with running(storage, handler, clock, on_exhausted="park_key") as bus:
            await bus.publish_batch([*deposits("a", range(4)), Deposited("b", 100)])
            await settled(bus)
            for _ in range(2):
                await clock.advance(10)
                await settled(bus)
            expect_equal(handler.numbers("a"), [0], "events of the key that are handled")
            expect_equal(handler.numbers("b"), [100], "events of another key")
        async with running(storage, handler, clock, on_exhausted="park_key") as bus:
            await bus.publish(Deposited("a", 4))
            await settled(bus)
            expect_equal(handler.numbers("a"), [0], "events of the key after a restart")
            [letter] = expect_count(1, await bus.dead_letters.list(), "dead letters")
            expect_equal(
                (letter.key, letter.queued),
                ("account/a", 3),
                "the key of the dead letter, and how many events are queued",
            )
            await bus.dead_letters.retry(letter.id)
            await bus.publish(Deposited("a", 5))
            await settled(bus)
            expect_equal(handler.numbers("a"), [0, 1, 2, 3, 4, 5], "events of the key after the retry")
            expect_equal(await bus.dead_letters.list(), [], "dead letters after the retry")


@case()
async def a_halted_subscription_keeps_its_watermark(factory: StorageFactory) -> None:
    """Halt at the event that fails, keep the watermark below it, and continue from there after a restart."""
    handler, clock = Handler(), VirtualClock()
    handler.failures = {1: 3}
    async with opened(factory) as storage:
        async with running(storage, handler, clock, on_exhausted="stop", retry_count=0, retry=None) as bus:
            await bus.publish_batch(deposits("a", range(3)))
            await settled(bus)
            expect_equal(handler.numbers(), [0], "events handled before the subscription halted")
            expect_equal(bus.health().status, "failing", "the health of the bus")
        [record] = expect_count(1, await storage.list_subscriptions(), "subscriptions")
        expect_equal(record.watermark, 1, "the watermark of the halted subscription")
        handler.failures.clear()
        async with running(storage, handler, clock, on_exhausted="stop") as bus:
            await settled(bus)
            await clock.advance(10)
            await settled(bus)
            expect_equal(handler.numbers(), [0, 1, 2], "events handled after the restart")


@case()
async def a_late_subscription_receives_events_from_its_start(factory: StorageFactory) -> None:
    """Deliver the whole log, the log after a position, or only new events, also during publishing."""
    async with opened(factory) as storage, running(storage, Handler()) as bus:
        receipts = await bus.publish_batch(deposits("a", range(5)))
        late: dict[Any, Handler] = {start: Handler() for start in ("beginning", receipts[2].position, "now")}
        for number, (start, handler) in enumerate(late.items(), 5):
            bus.subscribe(Deposited, handler, name=f"late-{start}", start=start)
            await bus.publish(Deposited("a", number))
        await bus.publish(Deposited("a", 8))
        await settled(bus)
        seen = [len(handler.handled) for handler in late.values()]
        expect_equal(seen, [9, 6, 2], "how many events each late subscription handled")
        for start, handler in late.items():
            stream = await storage.get_events_by_aggregate("a", "account")
            expect_equal(
                handler.handled,
                stream[9 - len(handler.handled) :],
                f"events handled by a subscription from {start}",
            )


@case()
async def a_name_subscribed_again_continues_at_its_cursor(factory: StorageFactory) -> None:
    """Keep the cursor of a name without a subscriber, and deliver the events it missed."""
    before, after = Handler(), Handler()
    async with opened(factory) as storage, running(storage, Handler()) as bus:
        subscription = bus.subscribe(Deposited, before, name="comes-and-goes")
        await bus.publish(Deposited("a", 0))
        await settled(bus)
        check(bus.unsubscribe(subscription), "unsubscribing a subscription must return True")
        await bus.publish_batch(deposits("a", range(1, 4)))
        bus.subscribe(Deposited, after, name="comes-and-goes", start="now")
        await bus.publish(Deposited("a", 4))
        await settled(bus)
        expect_equal(
            (before.numbers(), after.numbers()),
            ([0], [1, 2, 3, 4]),
            "numbers handled before and after the gap",
        )


@case()
async def a_bus_stopped_while_it_subscribes_releases_the_subscription(factory: StorageFactory) -> None:
    """Release a subscription that is being opened, whenever the bus is stopped."""
    async with opened(factory) as storage:
        for turns in range(12):
            name = f"sub-{turns}"
            bus = InMemoryEventBus(storage, clock=VirtualClock())
            await bus.start()
            bus.subscribe(Ticked, Handler(), name=name)
            for _ in range(turns):
                await asyncio.sleep(0)
            await bus.stop()
            cursor = await storage.open_subscription(name, "now")
            check(cursor is not None, f"{name!r} must be free after the bus that subscribed it has stopped")


@case()
async def a_scheduled_event_is_delivered_when_it_is_due(factory: StorageFactory) -> None:
    """Deliver it once, when the clock says it is due and not before, across a restart too."""
    handler, clock = Handler(), VirtualClock()
    async with opened(factory) as storage:
        async with running(storage, handler, clock) as bus:
            receipt = await bus.publish(Deposited("a", 1), delay=60)
            expect_equal(receipt.position, None, "the position of an event that is scheduled")
            await clock.advance(30)
            await settled(bus)
            expect_equal(handler.numbers(), [], "events handled after half of the delay")
        async with running(storage, handler, clock) as bus:
            await clock.advance(29)
            await settled(bus)
            expect_equal(handler.numbers(), [], "events handled just before it is due")
            await clock.advance(2)
            await settled(bus)
            expect_equal(handler.numbers(), [1], "events handled after the delay")


@case()
async def wait_for_finds_events_since_a_receipt(factory: StorageFactory) -> None:
    """Find the first match after a receipt, whether published before the call or after it."""
    async with opened(factory) as storage, running(storage, Handler()) as bus:
        receipt = await bus.publish(Deposited("a", 0))
        await bus.publish_batch(deposits("a", range(1, 4)))
        found = await bus.wait_for(Deposited, where=lambda event: event.number > 1, since=receipt)
        expect_equal(found, Deposited("a", 2), "the first event after the receipt that matches")


@case("persistent")
async def a_bus_continues_after_the_storage_was_closed(factory: StorageFactory) -> None:
    """After opening again, continue with events, retries, dead letters and queues, and repeat none."""
    handler, clock = Handler(), VirtualClock()
    handler.failures = {1: 1, 11: 3}
    async with opened(factory) as storage, running(storage, handler, clock, on_exhausted="park_key") as bus:
        await bus.publish_batch([*deposits("a", range(3)), *deposits("b", range(10, 13)), Ticked(20)])
        await settled(bus)
    for _ in range(2):
        await clock.advance(10)
        async with (
            opened(factory) as storage,
            running(storage, handler, clock, on_exhausted="park_key") as bus,
        ):
            await settled(bus)
    expect_equal(handler.numbers("a"), [0, 1, 2], "events of the account whose second event failed once")
    expect_equal(handler.numbers("b"), [10], "events of the account whose second event is parked")
    async with opened(factory) as storage, running(storage, handler, clock, on_exhausted="park_key") as bus:
        expect_equal(await bus.dead_letters.retry("all"), 1, "dead letters retried")
        await settled(bus)
        expect_equal(handler.numbers("b"), [10, 11, 12], "events of that account after the retry")
        expect_equal(handler.numbers().count(20), 1, "how often the event of no account was handled")
