"""Inspection: the state of an event at each subscription, with every failed attempt."""

from __future__ import annotations

from typing import Any

from pabal.ports.inspection import DeliveryRecord
from pabal.ports.storage import RECOVERIES_KEPT, Progress, RecoveredDelivery
from pabal.testing.conformance.case import StorageFactory, case, check, expect_count, expect_equal, opened
from pabal.testing.conformance.dead_letters import NOW, only, park, parked
from pabal.testing.conformance.subscriptions import again, failure, retry, take, ticks

NEEDS = ("inspectable",)

DONE_AT = 1_700_000_050.5


def recovered(position: int, failed: int = 1, *, finished_at: float = DONE_AT) -> RecoveredDelivery:
    """Return a delivery that succeeded after ``failed`` failed attempts."""
    failures = tuple(failure(number) for number in range(1, failed + 1))
    return RecoveredDelivery(position, failed + 1, failures, finished_at)


async def delivery(storage: Any, position: int) -> DeliveryRecord:
    """Return the only delivery stored for a position."""
    found = await storage.deliveries_at(position)
    expect_equal(len(found), 1, f"how many deliveries of position {position} are shown")
    return found[0]  # type: ignore[no-any-return]


@case()
async def each_subscription_has_one_delivery_with_its_state(factory: StorageFactory) -> None:
    """Show by name which subscription has finished, not begun, parked, queued, or will retry a position."""
    async with opened(factory) as storage:
        await ticks(storage, 5)
        other = await take(storage, "other")
        cursor = await take(storage)
        change = Progress(
            "sub", cursor.epoch, 1, 4, (2,), (retry(2, 2),), parked=(parked(3, key="k"),), queued=(("k", 4),)
        )
        await storage.save_progress([change, Progress("other", other.epoch, 5, 5)])
        [letter] = expect_count(1, await storage.list_dead_letters(), "dead letters")
        waiting = retry(2, 2)
        for position, expected in (
            (1, DeliveryRecord("sub", "finished")),
            (2, DeliveryRecord("sub", "retrying", 2, waiting.due_at, waiting.failures)),
            (3, DeliveryRecord("sub", "parked", 2, None, parked(3).failures, letter.id)),
            (4, DeliveryRecord("sub", "queued")),
            (5, DeliveryRecord("sub", "pending")),
        ):
            shown = await storage.deliveries_at(position)
            expect_equal(shown, [DeliveryRecord("other", "finished"), expected], f"deliveries of {position}")


@case()
async def a_recovered_delivery_keeps_its_failed_attempts(factory: StorageFactory) -> None:
    """Show the attempts, and when it succeeded, even if no retry was saved before; show none for others."""
    async with opened(factory) as storage:
        await ticks(storage, 3)
        cursor = await take(storage)
        await storage.save_progress([Progress("sub", cursor.epoch, 0, 3, (1,), (retry(1, 2),))])
        both = (recovered(1, 2), recovered(2))
        change = Progress("sub", cursor.epoch, 3, 3, cleared=(1, 2), recovered=both)
        await storage.save_progress([change])
        for position, failed in ((1, 2), (2, 1)):
            failures = recovered(position, failed).failures
            expected = DeliveryRecord("sub", "finished", failed + 1, failures=failures, finished_at=DONE_AT)
            expect_equal(await delivery(storage, position), expected, f"the delivery of {position}")
        expect_equal(
            await delivery(storage, 3), DeliveryRecord("sub", "finished"), "a delivery that never failed"
        )


@case()
async def a_recovered_dead_letter_keeps_its_failed_attempts(factory: StorageFactory) -> None:
    """Show the attempts after its retry has succeeded and the dead letter is gone."""
    async with opened(factory) as storage:
        await ticks(storage, 1)
        cursor = await park(storage, parked(1))
        await storage.begin_retry((await only(storage)).id, None, NOW)
        change = Progress("sub", cursor.epoch, 1, 1, cleared=(1,), recovered=(recovered(1, 2),))
        await storage.save_progress([change])
        shown = await delivery(storage, 1)
        expect_equal((shown.state, shown.dead_letter_id), ("finished", None), "its state and its dead letter")
        expect_equal((shown.attempts, shown.failures), (3, parked(1).failures), "its attempts")


@case()
async def a_recovery_saved_under_an_ended_epoch_is_dropped(factory: StorageFactory) -> None:
    """Keep nothing of a rejected save: the delivery will be made again."""
    async with opened(factory) as storage:
        await ticks(storage, 1)
        cursor = await take(storage)
        await storage.save_progress([Progress("sub", cursor.epoch, 0, 1, (1,), (retry(1),))])
        late = Progress("sub", cursor.epoch + 7, 1, 1, cleared=(1,), recovered=(recovered(1),))
        expect_equal(await storage.save_progress([late]), ["sub"], "names whose lease is lost")
        shown = await delivery(storage, 1)
        expect_equal((shown.state, shown.attempts, shown.finished_at), ("retrying", 1, None), "the delivery")


@case()
async def a_delivery_that_recovers_again_shows_all_attempts(factory: StorageFactory) -> None:
    """Show the attempts of a replay after those before it, and the attempts of a retry after both."""
    async with opened(factory) as storage:
        await ticks(storage, 1)
        cursor = await take(storage)
        for failed, finished_at in ((1, DONE_AT), (2, DONE_AT + 60)):
            one = recovered(1, failed, finished_at=finished_at)
            await storage.save_progress([Progress("sub", cursor.epoch, 1, 1, cleared=(1,), recovered=(one,))])
        shown = await delivery(storage, 1)
        failures = (failure(1), failure(1), failure(2))
        found = (shown.state, shown.attempts, shown.failures, shown.finished_at)
        expect_equal(found, ("finished", 5, failures, DONE_AT + 60), "the delivery after a replay")
        await storage.save_progress([Progress("sub", cursor.epoch, 1, 1, retries=(retry(1),))])
        shown = await delivery(storage, 1)
        found = (shown.state, shown.attempts, shown.failures, shown.finished_at)
        expect_equal(
            found, ("retrying", 6, (*failures, failure(1)), None), "the delivery while a replay is retried"
        )


@case()
async def the_newest_recoveries_are_kept(factory: StorageFactory) -> None:
    """Forget the oldest beyond ``RECOVERIES_KEPT``, whether they come in one save or in several."""
    async with opened(factory) as storage:
        await ticks(storage, 3)
        cursor = await take(storage)

        async def save(*some: RecoveredDelivery) -> None:
            await storage.save_progress([Progress("sub", cursor.epoch, 3, 3, cleared=(1,), recovered=some)])

        plain = RecoveredDelivery(3, 2, (), DONE_AT)
        await save(recovered(1), recovered(2))
        await save(*[plain] * (RECOVERIES_KEPT - 1))
        shown = [(await delivery(storage, position)).attempts for position in (1, 2, 3)]
        expect_equal(shown, [0, 2, 2 * (RECOVERIES_KEPT - 1)], "attempts that are shown of three positions")
        await save(plain)
        expect_equal(
            (await delivery(storage, 2)).attempts,
            0,
            "attempts of a recovery that is no longer among the newest",
        )


@case("controllable")
async def recoveries_are_forgotten_with_their_subscription(factory: StorageFactory) -> None:
    """Show none of the attempts for another subscription that gets the same name later."""
    async with opened(factory) as storage:
        await ticks(storage, 1)
        for name in ("sub", "other"):
            cursor = await take(storage, name)
            change = Progress(name, cursor.epoch, 1, 1, cleared=(1,), recovered=(recovered(1),))
            await storage.save_progress([change])
            await storage.release_subscription(name, cursor.epoch)
        expect_equal(await storage.forget_subscription("sub"), True, "forgetting the subscription")
        expect_equal(
            [one.subscription for one in await storage.deliveries_at(1)],
            ["other"],
            "subscriptions with a delivery",
        )
        await take(storage, "sub", "now")
        attempts = {one.subscription: one.attempts for one in await storage.deliveries_at(1)}
        expect_equal(attempts, {"other": 2, "sub": 0}, "attempts, once the name is opened again")


@case("persistent")
async def recoveries_survive_closing(factory: StorageFactory) -> None:
    """Show the failed attempts after the log was closed and opened again."""
    async with opened(factory) as storage:
        await ticks(storage, 1)
        cursor = await take(storage)
        change = Progress("sub", cursor.epoch, 1, 1, cleared=(1,), recovered=(recovered(1),))
        await storage.save_progress([change])
    async with opened(factory) as storage:
        expect_equal((await delivery(storage, 1)).failures, (failure(1),), "its failed attempts")


@case("controllable")
async def a_reset_of_a_held_subscription_waits_for_its_holder(factory: StorageFactory) -> None:
    """Move a subscription at once if it is not held; if it is, store the last request until it is opened."""
    async with opened(factory) as storage:
        await ticks(storage, 5)
        cursor = await take(storage)
        await storage.save_progress([Progress("sub", cursor.epoch, 4, 4, retries=(retry(5, 2),))])
        expect_equal(await storage.request_reset("sub", "beginning"), None, "a reset of a held subscription")
        expect_equal(
            await storage.request_reset("sub", 2), None, "a second reset, before the first took effect"
        )
        [control] = expect_count(1, await storage.read_controls(["sub"]), "controls")
        check(control.move is not None and control.move.start == 2, "its holder must see the last request")
        check(control.reopenings > cursor.reopenings, "a requested reset must count as a request to reopen")
        cursor = await again(storage, cursor)
        expect_equal((cursor.watermark, cursor.retries), (2, ()), "the cursor after reopening")
        await storage.save_progress([Progress("sub", cursor.epoch, 5, 5)])
        cursor = await again(storage, cursor)
        expect_equal(cursor.watermark, 5, "the cursor after reopening again")
        await storage.release_subscription("sub", cursor.epoch)
        expect_equal(await storage.request_reset("sub", 1), 1, "a reset of a released subscription")
        [control] = expect_count(1, await storage.read_controls(["sub"]), "controls")
        expect_equal(control.move, None, "the requested reset once it is done")


@case("controllable")
async def a_delayed_reset_to_now_repeats_nothing(factory: StorageFactory) -> None:
    """Take "now" as the time at which the reset takes effect; events handled before are not repeated."""
    async with opened(factory) as storage:
        await ticks(storage, 2)
        cursor = await take(storage)
        await storage.request_reset("sub", "now")
        await ticks(storage, 3)
        expect_equal((await again(storage, cursor)).watermark, 5, "the watermark after the reset")
