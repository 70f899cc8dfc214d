"""Subscriptions: a cursor per durable name, with one holder at a time, saved as a whole or not at all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from pabal.errors import UsageError
from pabal.ports.storage import AttemptFailure, Cursor, PendingRetry, Progress
from pabal.testing.conformance.case import (
    StorageFactory,
    case,
    check,
    expect_count,
    expect_equal,
    expect_error,
    opened,
)
from pabal.testing.conformance.events import Ticked

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def failure(attempt: int) -> AttemptFailure:
    """Return a failed attempt."""
    failed_at = NOON + timedelta(seconds=attempt, microseconds=7)
    return AttemptFailure(attempt, failed_at, "ValueError", f"no {attempt} é", "Traceback …\nValueError")


def retry(position: int, attempts: int = 1) -> PendingRetry:
    """Return a delivery that waits for its next attempt."""
    failures = tuple(failure(number) for number in range(1, attempts + 1))
    return PendingRetry(position, attempts, 1_700_000_000.25, failures)


async def ticks(storage: Any, count: int) -> list[int]:
    """Append events and return their positions."""
    positions: list[int] = await storage.store_events([Ticked(number) for number in range(count)])
    return positions


async def take(storage: Any, name: str = "sub", start: Any = "beginning") -> Cursor:
    """Open a subscription that must be free."""
    cursor = await storage.open_subscription(name, start)
    if cursor is None:
        raise AssertionError(f"subscription {name!r} must be free to take")
    return cursor  # type: ignore[no-any-return]


async def again(storage: Any, cursor: Cursor) -> Cursor:
    """Release a subscription and open it once more."""
    await storage.release_subscription(cursor.name, cursor.epoch)
    return await take(storage, cursor.name)


@case()
async def a_new_subscription_begins_at_its_start(factory: StorageFactory) -> None:
    """Begin now, at the beginning, after a position, or at a time; a start beyond the head means the head."""
    async with opened(factory) as storage:
        positions = await ticks(storage, 3)
        recorded = [envelope.recorded_at async for envelope in storage.read()]
        head = positions[-1]
        for number, (start, expected) in enumerate(
            (
                ("now", head),
                ("beginning", 0),
                (0, 0),
                (positions[1], positions[1]),
                (head + 100, head),
                (recorded[0] - timedelta(days=1), 0),
                (recorded[-1] + timedelta(days=1), head),
            )
        ):
            cursor = await take(storage, f"sub-{number}", start)
            expect_equal(
                (cursor.watermark, cursor.frontier), (expected, expected), f"the cursor with start={start!r}"
            )
            rest = (cursor.unfinished, cursor.retries, cursor.blocked_keys)
            expect_equal(rest, ((), (), ()), "unfinished work of a new subscription")
            expect_equal(cursor.name, f"sub-{number}", "the name of the cursor")
            check(cursor.number >= 1, f"the number must be at least 1: {cursor}")
            expect_equal(cursor.epoch, 1, "the epoch of a new name")


@case()
async def an_impossible_start_is_refused(factory: StorageFactory) -> None:
    """Raise UsageError for any other text, a fraction and a time without a zone; create nothing."""
    async with opened(factory) as storage:
        await ticks(storage, 2)
        for start in ("first", 1.5, NOON.replace(tzinfo=None)):
            await expect_error(UsageError, take(storage, "sub", start), f"opening at {start!r}")
        expect_equal(await storage.list_subscriptions(), [], "subscriptions after refused starts")


@case()
async def the_start_of_a_new_subscription_is_fixed_at_the_call(factory: StorageFactory) -> None:
    """Start a subscription at "now" below every append that begins after the call."""
    async with opened(factory) as storage:
        await ticks(storage, 2)
        opening = storage.open_subscription("sub", "now")
        position = await storage.store_event(Ticked(9))
        cursor = await opening
        check(cursor is not None, "a new subscription must be free")
        expect_equal(
            cursor.watermark, position - 1, "the watermark of a subscription opened before the append"
        )


@case()
async def each_subscription_has_its_own_number(factory: StorageFactory) -> None:
    """Give each name its own number, and keep it."""
    async with opened(factory) as storage:
        cursors = [await take(storage, name) for name in ("one", "two", "three")]
        expect_equal(len({cursor.number for cursor in cursors}), 3, "distinct numbers of three subscriptions")
        expect_equal(
            (await again(storage, cursors[1])).number, cursors[1].number, "the number after opening again"
        )


@case()
async def a_known_subscription_continues_at_its_cursor(factory: StorageFactory) -> None:
    """Continue at the saved cursor, whatever ``start`` says."""
    async with opened(factory) as storage:
        await ticks(storage, 5)
        cursor = await take(storage)
        await storage.save_progress([Progress("sub", cursor.epoch, 2, 4, (3,))])
        await storage.release_subscription("sub", cursor.epoch)
        for start in ("now", 5, "beginning"):
            cursor = await take(storage, start=start)
            found = (cursor.watermark, cursor.frontier, cursor.unfinished)
            expect_equal(found, (2, 4, (3,)), f"the cursor opened again with start={start!r}")
            await storage.release_subscription("sub", cursor.epoch)


@case()
async def a_subscription_has_one_holder_at_a_time(factory: StorageFactory) -> None:
    """Return None while a subscription is held, and a higher epoch to the next holder."""
    async with opened(factory) as storage:
        first = await take(storage)
        expect_equal(await storage.open_subscription("sub", "now"), None, "opening a held subscription")
        await take(storage, "other")
        second = await again(storage, first)
        check(second.epoch > first.epoch, f"the epoch must grow: {first.epoch}, then {second.epoch}")


@case()
async def a_holder_can_reopen_its_subscription_without_releasing_it(factory: StorageFactory) -> None:
    """Return the saved cursor and a higher epoch if it is opened with the epoch in which it is held."""
    async with opened(factory) as storage:
        await ticks(storage, 5)
        first = await take(storage)
        await storage.save_progress([Progress("sub", first.epoch, 2, 4, (3,), (retry(3),))])
        wrong = await storage.open_subscription("sub", "now", epoch=first.epoch + 1)
        expect_equal(wrong, None, "opening a held subscription with another epoch")
        second = await storage.open_subscription("sub", "now", epoch=first.epoch)
        if second is None:
            raise AssertionError("its holder must be able to reopen a subscription with its epoch")
        found = (second.number, second.watermark, second.frontier, second.unfinished, second.retries)
        expect_equal(found, (first.number, 2, 4, (3,), (retry(3),)), "the cursor after reopening")
        check(second.epoch > first.epoch, f"the epoch must grow: {first.epoch}, then {second.epoch}")
        expect_equal(await storage.open_subscription("sub", "now"), None, "opening a reopened subscription")
        late = await storage.open_subscription("sub", "now", epoch=first.epoch)
        expect_equal(late, None, "opening a reopened subscription with its previous epoch")
        expect_equal(
            await storage.save_progress([Progress("sub", first.epoch, 5, 5)]), ["sub"], "names rejected"
        )
        await storage.release_subscription("sub", first.epoch)
        expect_equal(
            await storage.open_subscription("sub", "now"),
            None,
            "opening after a release with the previous epoch",
        )
        given_up = await again(storage, second)
        expect_equal(given_up.watermark, 2, "the watermark after a release")
        await storage.release_subscription("sub", given_up.epoch)
        free = await storage.open_subscription("sub", "now", epoch=given_up.epoch)
        check(free is not None, "a released subscription must open with any epoch")


@case()
async def only_one_of_several_concurrent_openings_succeeds(factory: StorageFactory) -> None:
    """Give a subscription to one of ten concurrent callers."""
    async with opened(factory) as storage:
        for name in ("new", "known"):
            if name == "known":
                cursor = await take(storage, name)
                await storage.release_subscription(name, cursor.epoch)
            openings = [storage.open_subscription(name, "now") for _ in range(10)]
            cursors = [cursor for cursor in await asyncio.gather(*openings) if cursor is not None]
            expect_equal(len(cursors), 1, f"how many of ten hold the {name} subscription")


@case()
async def saved_progress_is_restored(factory: StorageFactory) -> None:
    """Return watermark, frontier, unfinished positions, retries with their failures, and queues."""
    async with opened(factory) as storage:
        positions = await ticks(storage, 40)
        cursor = await take(storage)
        unfinished = tuple(positions[4:30:3])
        retries = (retry(positions[4]), retry(positions[7], 3))
        queued = (("k/2", positions[20]), ("k/1", positions[12]), ("k/1", positions[10]))
        change = Progress(
            "sub", cursor.epoch, positions[3], positions[32], unfinished, retries, queued=queued
        )
        expect_equal(await storage.save_progress([change]), [], "subscriptions lost at a save")
        cursor = await again(storage, cursor)
        found = (cursor.watermark, cursor.frontier, cursor.unfinished)
        expect_equal(
            found, (positions[3], positions[32], unfinished), "watermark, frontier and unfinished positions"
        )
        expect_equal(cursor.retries, retries, "retries, by position")
        expect_equal(sorted(cursor.blocked_keys), ["k/1", "k/2"], "blocked keys")
        expect_equal(
            await storage.queued_positions("sub", "k/1", 10),
            [positions[10], positions[12]],
            "the queue of k/1",
        )
        expect_equal(
            await storage.queued_positions("sub", "k/1", 1),
            [positions[10]],
            "the first position in the queue of k/1",
        )
        expect_equal(
            await storage.queued_positions("sub", "k/9", 10), [], "the queue of a key that is not blocked"
        )


@case()
async def later_saves_replace_earlier_ones(factory: StorageFactory) -> None:
    """Replace a retry by its next state; forget retries and places in queues that are cleared."""
    async with opened(factory) as storage:
        await ticks(storage, 9)
        cursor = await take(storage)
        epoch = cursor.epoch
        first = Progress("sub", epoch, 0, 0, (), (retry(1), retry(2)), queued=(("k", 3), ("k", 4), ("l", 5)))
        await storage.save_progress([first])
        await storage.save_progress([Progress("sub", epoch, 0, 2, (1,), (retry(1, 2),), cleared=(2, 3, 5))])
        cursor = await again(storage, cursor)
        expect_equal(cursor.retries, (retry(1, 2),), "retries after one was replaced and one was cleared")
        expect_equal(cursor.blocked_keys, ("k",), "blocked keys after one queue was cleared")
        expect_equal(
            await storage.queued_positions("sub", "k", 10), [4], "the queue after one place was cleared"
        )


@case()
async def one_save_covers_several_subscriptions(factory: StorageFactory) -> None:
    """Save the progress of each name to its own cursor."""
    async with opened(factory) as storage:
        await ticks(storage, 9)
        held = [await take(storage, name) for name in ("one", "two")]
        changes = [Progress(c.name, c.epoch, at, at, (), (retry(at + 1),)) for at, c in enumerate(held, 3)]
        expect_equal(await storage.save_progress(changes), [], "subscriptions lost at a save")
        for at, cursor in enumerate(held, 3):
            found = await again(storage, cursor)
            expect_equal(
                (found.watermark, found.retries), (at, (retry(at + 1),)), f"the cursor of {cursor.name!r}"
            )


@case()
async def progress_of_an_ended_epoch_is_rejected(factory: StorageFactory) -> None:
    """Return the name and save nothing for it, but save the other names of the same call."""
    async with opened(factory) as storage:
        await ticks(storage, 9)
        old = await take(storage)
        other = await take(storage, "other")
        await storage.release_subscription("sub", old.epoch)
        late = Progress("sub", old.epoch, 5, 5, (), (retry(6),), queued=(("k", 7),))
        expect_equal(await storage.save_progress([late]), ["sub"], "names rejected after the release")
        new = await take(storage)
        both = [late, Progress("other", other.epoch, 4, 4)]
        expect_equal(
            await storage.save_progress(both), ["sub"], "names rejected after another holder opened it"
        )
        await storage.release_subscription("sub", old.epoch)
        expect_equal(
            await storage.open_subscription("sub", "now"),
            None,
            "opening after a release with an old epoch",
        )
        found = await again(storage, new)
        expect_equal(
            (found.watermark, found.retries, found.blocked_keys),
            (0, (), ()),
            "the cursor after rejected saves",
        )
        expect_equal((await again(storage, other)).watermark, 4, "the cursor of the other name")


@case()
async def subscriptions_are_listed_with_their_unfinished_work(factory: StorageFactory) -> None:
    """Show all durable names, sorted, held or not, with their unfinished work."""
    async with opened(factory) as storage:
        await ticks(storage, 9)
        expect_equal(await storage.list_subscriptions(), [], "subscriptions before any was opened")
        busy = await take(storage, "busy")
        idle = await take(storage, "an idle one", "now")
        await storage.release_subscription(idle.name, idle.epoch)
        change = Progress("busy", busy.epoch, 1, 6, (2, 4), (retry(2), retry(4)), queued=(("k", 3), ("k", 5)))
        await storage.save_progress([change])
        first, second = expect_count(2, await storage.list_subscriptions(), "subscriptions")
        figures = (first.name, first.watermark, first.frontier, first.unfinished, first.retries, first.queued)
        expect_equal(figures, ("an idle one", 9, 9, 0, 0, 0), "statistics of an idle subscription")
        expect_equal(first.owner, None, "the owner of a released subscription")
        figures = (
            second.name,
            second.watermark,
            second.frontier,
            second.unfinished,
            second.retries,
            second.queued,
        )
        expect_equal(figures, ("busy", 1, 6, 4, 2, 2), "statistics of a busy subscription")
        check(second.owner is not None, "a held subscription must have an owner")
        expect_equal(second.epoch, busy.epoch, "the epoch of a held subscription")
        near = abs(second.updated_at - datetime.now(UTC)) < timedelta(minutes=1)
        check(near, f"updated_at must be when it was saved: {second.updated_at}")


@case()
async def events_some_subscription_has_not_finished_are_unprocessed(factory: StorageFactory) -> None:
    """Return events above a frontier, unfinished, to be retried, or queued: each once, in order."""
    async with opened(factory) as storage:
        await ticks(storage, 10)
        one, two = await take(storage, "one"), await take(storage, "two")
        await storage.save_progress(
            [
                Progress("one", one.epoch, 2, 8, (3,), (retry(3),), queued=(("k", 5),)),
                Progress("two", two.epoch, 8, 8, (), (retry(6),)),
            ]
        )
        found = [event.number + 1 for event in await storage.get_unprocessed_events()]
        expect_equal(found, [3, 5, 6, 9, 10], "unfinished positions")
        found = [event.number + 1 for event in await storage.get_unprocessed_events(limit=3)]
        expect_equal(found, [3, 5, 6], "the first three unfinished positions")


@case()
async def leases_of_held_subscriptions_are_kept(factory: StorageFactory) -> None:
    """Lose no lease at a renewal if no other storage has opened the subscription."""
    async with opened(factory) as storage:
        expect_equal(await storage.renew_leases(), [], "leases lost before any was taken")
        await take(storage)
        expect_equal(await storage.renew_leases(), [], "leases lost without another storage")


@case("persistent")
async def cursors_survive_closing(factory: StorageFactory) -> None:
    """After opening again, return what was saved before to the next holder."""
    async with opened(factory) as storage:
        await ticks(storage, 9)
        cursor = await take(storage)
        await storage.save_progress(
            [Progress("sub", cursor.epoch, 2, 6, (3, 5), (retry(3), retry(5, 2)), queued=(("k", 4),))]
        )
    async with opened(factory) as storage:
        found = await take(storage, start="now")
        expect_equal(
            (found.watermark, found.frontier, found.unfinished),
            (2, 6, (3, 5)),
            "the cursor after opening again",
        )
        expect_equal(found.retries, (retry(3), retry(5, 2)), "the retries after opening again")
        expect_equal(found.blocked_keys, ("k",), "the blocked keys after opening again")
        expect_equal(found.number, cursor.number, "the number after opening again")
        check(found.epoch > cursor.epoch, f"the epoch must grow: {cursor.epoch}, then {found.epoch}")


@case("shared")
async def another_storage_can_open_a_subscription_once_it_is_released(factory: StorageFactory) -> None:
    """Return None to a second storage while the first holds it, and a cursor once it is released."""
    async with opened(factory) as left, opened(factory) as right:
        await ticks(left, 5)
        cursor = await take(left)
        expect_equal(
            await right.open_subscription("sub", "now"),
            None,
            "opening a subscription that another storage holds",
        )
        await left.save_progress([Progress("sub", cursor.epoch, 3, 3)])
        await left.release_subscription("sub", cursor.epoch)
        taken = await take(right)
        expect_equal(taken.watermark, 3, "the watermark in the other storage")
        late = [Progress("sub", cursor.epoch, 4, 4)]
        expect_equal(await left.save_progress(late), ["sub"], "names rejected for the former holder")
        expect_equal(
            await left.open_subscription("sub", "now"),
            None,
            "opening a subscription that the other storage holds now",
        )
        await right.save_progress([Progress("sub", taken.epoch, 5, 5)])
        expect_equal(
            (await again(right, taken)).watermark, 5, "the cursor after the former holder's rejected save"
        )
