"""Controls: subscriptions can be paused, moved, replayed and removed, whichever process handles them."""

from __future__ import annotations

from typing import Any

from pabal.errors import SubscriptionInUseError, SubscriptionNotFoundError, UsageError
from pabal.ports.storage import Control, ParkedDelivery, PendingRetry, Progress, Replay
from pabal.testing.conformance.case import (
    StorageFactory,
    case,
    check,
    expect_count,
    expect_equal,
    expect_error,
    opened,
)
from pabal.testing.conformance.subscriptions import again, take, ticks

NEEDS = ("controllable",)


async def control_of(storage: Any, name: str = "sub") -> Control:
    """Return the requests for a subscription."""
    [control] = expect_count(1, await storage.read_controls([name]), "controls")
    return control  # type: ignore[no-any-return]


def parked(position: int, key: str | None = None) -> ParkedDelivery:
    """Return a delivery that was parked."""
    return ParkedDelivery(position, "no", (), 1_700_000_000.0, None, None, key, key is not None)


@case()
async def a_pause_lasts_until_resume(factory: StorageFactory) -> None:
    """Show the pause when the subscription is opened or listed, and return whether a call changed it."""
    async with opened(factory) as storage:
        cursor = await take(storage)
        check(not cursor.paused, "a new subscription must not be paused")
        expect_equal(await storage.pause_subscription("sub"), True, "pausing")
        expect_equal(await storage.pause_subscription("sub"), False, "pausing a paused subscription")
        expect_equal((await control_of(storage)).paused, True, "the pause in its controls")
        [record] = expect_count(1, await storage.list_subscriptions(), "subscriptions")
        expect_equal(record.paused, True, "the pause in the list of subscriptions")
        cursor = await again(storage, cursor)
        expect_equal(cursor.paused, True, "the pause in the cursor of the next holder")
        expect_equal(await storage.resume_subscription("sub"), True, "resuming")
        expect_equal(await storage.resume_subscription("sub"), False, "resuming an active subscription")
        expect_equal((await again(storage, cursor)).paused, False, "the pause in the cursor after resuming")


@case()
async def a_halt_is_shown_until_resume(factory: StorageFactory) -> None:
    """Show why a subscription has halted, until it is resumed or opened again."""
    async with opened(factory) as storage:
        cursor = await take(storage)
        expect_equal(await storage.note_halt("sub", cursor.epoch + 1, "no"), False, "a halt in another epoch")
        expect_equal(
            (await control_of(storage)).halted, False, "the halt in its controls before it has halted"
        )
        expect_equal(await storage.note_halt("sub", cursor.epoch, "halted at 3"), True, "a halt")
        expect_equal((await control_of(storage)).halted, True, "the halt in its controls")
        [record] = expect_count(1, await storage.list_subscriptions(), "subscriptions")
        expect_equal(record.halted, "halted at 3", "the reason in the list of subscriptions")
        expect_equal(await storage.resume_subscription("sub"), True, "resuming")
        expect_equal(await storage.resume_subscription("sub"), False, "resuming an active subscription")
        expect_equal((await control_of(storage)).halted, False, "the halt in its controls once it is resumed")
        await storage.note_halt("sub", cursor.epoch, "halted at 4")
        earlier, cursor = cursor, await again(storage, cursor)
        expect_equal(await storage.note_halt("sub", earlier.epoch, "late"), False, "a halt in an ended epoch")
        await storage.note_halt("sub", cursor.epoch, "halted at 5")
        await storage.release_subscription("sub", cursor.epoch)
        [record] = expect_count(1, await storage.list_subscriptions(), "subscriptions")
        expect_equal(record.halted, "", "the reason once it is released")


@case()
async def unknown_subscriptions_cannot_be_controlled(factory: StorageFactory) -> None:
    """Raise SubscriptionNotFoundError with the known names; reading and forgetting ignore unknown names."""
    async with opened(factory) as storage:
        await take(storage, "known")
        for what, call in (
            ("pause", storage.pause_subscription("sub")),
            ("resume", storage.resume_subscription("sub")),
            ("reset", storage.reset_subscription("sub", "now")),
            ("replay", storage.request_replay("sub", 1, 2)),
            ("cancel replays", storage.cancel_replays("sub")),
        ):
            error = await expect_error(SubscriptionNotFoundError, call, f"{what} of an unknown subscription")
            expect_equal((error.name, error.known), ("sub", "known"), f"the names in the error of {what}")
        expect_equal(await storage.read_controls(["sub"]), [], "controls of an unknown subscription")
        expect_equal(await storage.forget_subscription("sub"), False, "forgetting an unknown subscription")


@case()
async def control_listeners_are_called_on_each_request(factory: StorageFactory) -> None:
    """Call listeners once the request can be read, until they are removed."""
    async with opened(factory) as storage:
        await ticks(storage, 3)
        cursor = await take(storage)
        await storage.save_progress([Progress("sub", cursor.epoch, 3, 3)])
        heard: list[None] = []
        remove = storage.add_control_listener(lambda: heard.append(None))
        await storage.pause_subscription("sub")
        await storage.request_replay("sub", 1, 2)
        await storage.cancel_replays("sub")
        expect_equal(len(heard), 3, "how often a listener was called")
        remove()
        await storage.resume_subscription("sub")
        expect_equal(len(heard), 3, "how often it was called after it was removed")


@case()
async def a_reset_moves_the_cursor_and_drops_unfinished_work(factory: StorageFactory) -> None:
    """Restart after a position, with no retry, queue or replay left, and no dead letter above it."""
    async with opened(factory) as storage:
        positions = await ticks(storage, 8)
        cursor = await take(storage)
        change = Progress("sub", cursor.epoch, 5, 7, (6,), retries=(PendingRetry(6, 1, 5.0),))
        change.parked = (parked(2, "a"), parked(4))
        change.queued = (("a", 5),)
        await storage.save_progress([change])
        await storage.request_replay("sub", 1, 3)
        await storage.release_subscription("sub", cursor.epoch)
        expect_equal(await storage.reset_subscription("sub", positions[2]), 3, "the position it was reset to")
        cursor = await take(storage)
        found = (cursor.watermark, cursor.frontier, cursor.unfinished, cursor.retries, cursor.replays)
        expect_equal(found, (3, 3, (), (), ()), "the cursor after a reset")
        expect_equal(cursor.blocked_keys, (), "blocked keys after a reset")
        expect_equal(await storage.queued_positions("sub", "a", 10), [], "queued positions after a reset")
        letters = await storage.list_dead_letters()
        expect_equal([(one.position, one.key) for one in letters], [(2, None)], "dead letters after a reset")


@case()
async def a_reset_accepts_every_kind_of_start(factory: StorageFactory) -> None:
    """Accept the beginning, now, a position, and a time."""
    async with opened(factory) as storage:
        await ticks(storage, 4)
        recorded = [envelope.recorded_at async for envelope in storage.read()]
        cursor = await take(storage)
        await storage.release_subscription("sub", cursor.epoch)
        for to, expected in (("now", 4), ("beginning", 0), (2, 2), (99, 4), (recorded[0], 0)):
            expect_equal(
                await storage.reset_subscription("sub", to), expected, f"the position of a reset to {to!r}"
            )
            [record] = expect_count(1, await storage.list_subscriptions(), "subscriptions")
            expect_equal((record.watermark, record.frontier), (expected, expected), f"the cursor at {to!r}")
        await expect_error(UsageError, storage.reset_subscription("sub", "first"), "a reset to 'first'")


@case()
async def a_held_subscription_cannot_be_reset_or_forgotten_by_others(factory: StorageFactory) -> None:
    """Raise SubscriptionInUseError and change nothing; the holder itself may reset."""
    async with opened(factory) as storage:
        await ticks(storage, 4)
        cursor = await take(storage)
        await storage.save_progress([Progress("sub", cursor.epoch, 3, 3)])
        for what, call in (
            ("reset", storage.reset_subscription("sub", "beginning")),
            ("reset under another epoch", storage.reset_subscription("sub", 1, epoch=cursor.epoch + 1)),
            ("forget", storage.forget_subscription("sub")),
        ):
            error = await expect_error(SubscriptionInUseError, call, what)
            expect_equal(error.name, "sub", f"the name in the error of {what}")
        [record] = expect_count(1, await storage.list_subscriptions(), "subscriptions")
        expect_equal(record.watermark, 3, "the watermark after rejected calls")
        expect_equal(
            await storage.reset_subscription("sub", 1, epoch=cursor.epoch), 1, "a reset by the holder"
        )


@case()
async def a_forgotten_subscription_starts_over(factory: StorageFactory) -> None:
    """Remove cursor, retries, queues and replays; keep the dead letters, which can then be retried."""
    async with opened(factory) as storage:
        await ticks(storage, 4)
        cursor = await take(storage)
        change = Progress("sub", cursor.epoch, 3, 3, retries=(PendingRetry(2, 1, 5.0),))
        change.parked, change.queued = (parked(1, "a"),), (("a", 3),)
        await storage.save_progress([change])
        await storage.request_replay("sub", 1, 2)
        [letter] = await storage.list_dead_letters()
        await storage.begin_retry(letter.id, None, 0.0)
        await storage.release_subscription("sub", cursor.epoch)
        expect_equal(await storage.forget_subscription("sub"), True, "forgetting")
        expect_equal(await storage.list_subscriptions(), [], "subscriptions that are left")
        [letter] = expect_count(1, await storage.list_dead_letters(), "dead letters that are left")
        expect_equal(
            (letter.state, letter.key), ("parked", None), "state and blocked key of what was retried"
        )
        expect_equal(
            await storage.count_dead_letters(), 1, "the number of dead letters, while it is forgotten"
        )
        cursor = await take(storage)
        found = (cursor.watermark, cursor.retries, cursor.replays, cursor.blocked_keys)
        expect_equal(found, (0, (), (), ()), "the cursor of the same name, opened as a new one")
        expect_equal(cursor.epoch, 1, "its epoch, which tells a former holder that it was forgotten")
        expect_equal(await storage.list_dead_letters(), [], "dead letters of events that it gets again")
        expect_equal(await storage.count_dead_letters(), 0, "their number")


@case()
async def replays_stay_in_the_cursor_until_they_are_done(factory: StorageFactory) -> None:
    """Keep each replay with its progress, oldest first, until its last position is finished."""
    async with opened(factory) as storage:
        await ticks(storage, 9)
        cursor = await take(storage)
        await storage.save_progress([Progress("sub", cursor.epoch, 8, 8)])
        first = await storage.request_replay("sub", 2, 5)
        second = await storage.request_replay("sub", -3, 99)
        expect_equal(first, Replay(first.id, "sub", 2, 5, 1), "the replay of a range")
        expect_equal(
            second,
            Replay(second.id, "sub", 1, 8, 0),
            "the replay of a range, cut to what the subscription has finished",
        )
        cursor = await again(storage, cursor)
        expect_equal(cursor.replays, (first, second), "replays in the cursor")
        await storage.save_progress([Progress("sub", cursor.epoch, 8, 8, replayed=((first.id, 4),))])
        cursor = await again(storage, cursor)
        expect_equal([one.watermark for one in cursor.replays], [4, 0], "watermarks of the replays")
        await storage.save_progress([Progress("sub", cursor.epoch, 8, 8, replayed=((first.id, 5),))])
        expect_equal((await control_of(storage)).replays, (second,), "replays that are left")
        [record] = expect_count(1, await storage.list_subscriptions(), "subscriptions")
        expect_equal(record.replays, (second,), "replays in the list of subscriptions")
        expect_equal(await storage.cancel_replays("sub"), 1, "replays cancelled")
        expect_equal((await again(storage, cursor)).replays, (), "replays after cancelling")


@case()
async def an_empty_replay_range_is_rejected(factory: StorageFactory) -> None:
    """Raise UsageError for a range that ends before it begins, or holds only events still to be delivered."""
    async with opened(factory) as storage:
        await ticks(storage, 5)
        cursor = await take(storage)
        await storage.save_progress([Progress("sub", cursor.epoch, 3, 3)])
        for first, last in ((3, 2), (4, 5), (1, 0)):
            await expect_error(
                UsageError, storage.request_replay("sub", first, last), f"replay {first} to {last}"
            )
        expect_equal((await control_of(storage)).replays, (), "replays after rejected calls")
        one = await storage.request_replay("sub", 3, 3)
        expect_equal((one.first, one.last), (3, 3), "a range of one position, which is not empty")


@case()
async def positions_of_dead_letters_are_returned_within_a_range(factory: StorageFactory) -> None:
    """Return those above one position and up to another, and those of what queues behind them."""
    async with opened(factory) as storage:
        await ticks(storage, 6)
        for name in ("sub", "other"):
            cursor = await take(storage, name)
            change = Progress(name, cursor.epoch, 6, 6)
            change.parked = tuple(parked(p) for p in ((1, 3, 5) if name == "sub" else (2,)))
            change.queued = (("k", 4), ("k", 6)) if name == "sub" else ()
            await storage.save_progress([change])
        expect_equal(await storage.parked_positions("sub", 1, 5), [3, 4, 5], "parked in (1, 5]")
        expect_equal(await storage.parked_positions("other", 0, 1), [], "parked in (0, 1] of another")


@case("shared")
async def poll_controls_reports_requests_of_other_storages(factory: StorageFactory) -> None:
    """Return True from ``poll_controls`` once after another storage object made a request."""
    async with opened(factory) as storage, opened(factory) as other:
        await take(storage)
        storage.poll_head()
        storage.poll_controls()
        storage.poll_head()
        expect_equal(storage.poll_controls(), False, "polling before a request")
        await other.pause_subscription("sub")
        storage.poll_head()
        expect_equal(storage.poll_controls(), True, "polling after a request of the other storage")
        storage.poll_head()
        expect_equal(storage.poll_controls(), False, "polling again")
