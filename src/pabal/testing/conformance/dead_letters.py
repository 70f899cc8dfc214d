"""Dead letters: deliveries that were parked, kept with their bytes until they are retried or discarded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from pabal.domain.envelope import decode_event
from pabal.errors import DeadLetterNotFoundError, DecodeError
from pabal.ports.storage import Cursor, DeadLetterRecord, ParkedDelivery, Progress
from pabal.testing.conformance.case import (
    StorageFactory,
    case,
    check,
    expect_count,
    expect_equal,
    expect_error,
    opened,
)
from pabal.testing.conformance.events import Deposited, Ticked
from pabal.testing.conformance.subscriptions import again, failure, retry, take

PARKED_AT = 1_700_000_000.5
NOW = 1_700_000_100.0


def parked(position: int, *, key: str | None = None, error_type: str | None = None) -> ParkedDelivery:
    """Return a delivery that was parked after two attempts."""
    failures = (failure(1), failure(2))
    if error_type is not None:
        failures = (failures[0], msgspec.structs.replace(failures[1], error_type=error_type))
    return ParkedDelivery(
        position, f"reason {position}", failures, PARKED_AT, None, None, key, key is not None
    )


async def park(storage: Any, *letters: ParkedDelivery, name: str = "sub") -> Cursor:
    """Open a subscription, save dead letters with it, and return its cursor."""
    cursor = await take(storage, name)
    upto = max((letter.position for letter in letters), default=0)
    await storage.save_progress([Progress(name, cursor.epoch, upto, upto, parked=letters)])
    return cursor


async def only(storage: Any) -> DeadLetterRecord:
    """Return the only dead letter."""
    found = await storage.list_dead_letters()
    expect_equal(len(found), 1, "how many dead letters there are")
    return found[0]  # type: ignore[no-any-return]


@case()
async def a_dead_letter_keeps_the_whole_delivery(factory: StorageFactory) -> None:
    """Show subscription, position, reason, time, every failure, and the row with its original bytes."""
    async with opened(factory) as storage:
        await storage.store_events([Ticked(1), Deposited("a", 2, metadata={"desk": "x"})])
        await park(storage, parked(2))
        letter = await only(storage)
        expect_equal(
            (letter.subscription, letter.position, letter.reason), ("sub", 2, "reason 2"), "the dead letter"
        )
        expect_equal((letter.state, letter.key, letter.queued), ("parked", None, 0), "state, key and queue")
        expect_equal(letter.failures, (failure(1), failure(2)), "its failures")
        expect_equal(letter.parked_at, datetime.fromtimestamp(PARKED_AT, UTC), "when it was parked")
        [row] = expect_count(1, await storage.read_positions([2]), "rows")
        expect_equal(letter.record, row, "its row, as in the log")
        expect_equal(await storage.get_dead_letter(letter.id), letter, "the same dead letter by its id")


@case()
async def dead_letters_are_listed_by_id_and_filtered(factory: StorageFactory) -> None:
    """Return those above an id, ascending, up to a limit, by subscription, event type or error type."""
    async with opened(factory) as storage:
        await storage.store_events([Ticked(1), Deposited("a", 2), Ticked(3), Deposited("a", 4)])
        await park(storage, parked(1), parked(2, error_type="KeyError"))
        await park(storage, parked(3), parked(4), name="other")
        letters = await storage.list_dead_letters()
        ids = [letter.id for letter in letters]
        check(ids == sorted(set(ids)), f"ids must ascend: {ids}")
        expect_equal([letter.position for letter in letters], [1, 2, 3, 4], "positions of all dead letters")
        for filters, expected in (
            ({"subscription": "sub"}, [1, 2]),
            ({"subscription": "nobody"}, []),
            ({"event_type": "conformance.ticked"}, [1, 3]),
            ({"error_type": "KeyError"}, [2]),
            ({"subscription": "other", "event_type": "conformance.deposited"}, [4]),
            ({"after": ids[1]}, [3, 4]),
            ({"limit": 3}, [1, 2, 3]),
            ({"after": ids[0], "limit": 1, "event_type": "conformance.ticked"}, [3]),
        ):
            found = [letter.position for letter in await storage.list_dead_letters(**filters)]
            expect_equal(found, expected, f"dead letters that match {filters}")


@case()
async def an_unknown_dead_letter_raises_an_error(factory: StorageFactory) -> None:
    """Raise DeadLetterNotFoundError with the id, from every call."""
    async with opened(factory) as storage:
        for what, call in (
            ("get", storage.get_dead_letter(7)),
            ("begin_retry", storage.begin_retry(7, None, NOW)),
            ("discard", storage.discard_dead_letter(7)),
        ):
            error = await expect_error(DeadLetterNotFoundError, call, f"{what} of an unknown dead letter")
            expect_equal(error.dead_letter_id, 7, f"the dead_letter_id in the error of {what}")
        for beyond in (2**63, -(2**63) - 1, 10**30):
            for what, call in (
                ("get", storage.get_dead_letter(beyond)),
                ("begin_retry", storage.begin_retry(beyond, None, NOW)),
                ("discard", storage.discard_dead_letter(beyond)),
            ):
                await expect_error(DeadLetterNotFoundError, call, f"{what} of a dead letter {beyond}")


@case()
async def a_retry_begins_once(factory: StorageFactory) -> None:
    """Return the dead letter at the first call and None at the next; put the retry into the cursor."""
    async with opened(factory) as storage:
        await storage.store_event(Deposited("a", 1))
        cursor = await park(storage, parked(1))
        letter = await only(storage)
        begun = await storage.begin_retry(letter.id, None, NOW)
        check(begun is not None and begun.state == "retrying", f"the retry must have begun: {begun}")
        assert begun is not None
        expect_equal(begun.record, letter.record, "the row to deliver again")
        expect_equal(
            await storage.begin_retry(letter.id, None, NOW), None, "beginning a retry that has already begun"
        )
        [pending] = expect_count(1, (await again(storage, cursor)).retries, "retries")
        found = (pending.position, pending.attempts, pending.due_at, pending.from_dead_letter)
        expect_equal(found, (1, 0, NOW, True), "the retry in the cursor")
        expect_equal(pending.failures, letter.failures, "the failures that the retry continues from")


@case()
async def a_retry_that_succeeds_removes_the_dead_letter(factory: StorageFactory) -> None:
    """Remove it when its position is cleared; keep one that is parked and not being retried."""
    async with opened(factory) as storage:
        await storage.store_events([Ticked(1), Ticked(2)])
        cursor = await park(storage, parked(1), parked(2))
        first, second = expect_count(2, await storage.list_dead_letters(), "dead letters")
        await storage.begin_retry(first.id, None, NOW)
        await storage.save_progress([Progress("sub", cursor.epoch, 2, 2, cleared=(1, 2))])
        expect_equal((await only(storage)).id, second.id, "the dead letter that is left")
        expect_equal((await again(storage, cursor)).retries, (), "retries that are left")


@case()
async def a_retry_that_fails_is_parked_under_the_same_id(factory: StorageFactory) -> None:
    """Keep id and row, take the new reason and failures, and allow another retry."""
    async with opened(factory) as storage:
        await storage.store_event(Deposited("a", 1))
        cursor = await park(storage, parked(1))
        letter = await only(storage)
        await storage.begin_retry(letter.id, None, NOW)
        worse = ParkedDelivery(1, "still wrong", (*letter.failures, failure(3)), NOW, None)
        await storage.save_progress([Progress("sub", cursor.epoch, 1, 1, parked=(worse,))])
        found = await only(storage)
        expect_equal(
            (found.id, found.state, found.reason), (letter.id, "parked", "still wrong"), "the dead letter"
        )
        expect_equal(
            (found.failures, found.record), (worse.failures, letter.record), "its failures and its row"
        )
        expect_equal((await again(storage, cursor)).retries, (), "retries that are left")
        check(
            await storage.begin_retry(letter.id, None, NOW) is not None,
            "a dead letter that was parked again can be retried",
        )


@case()
async def a_retry_can_edit_the_payload(factory: StorageFactory) -> None:
    """Deliver the new payload, keep it if it is parked again, and leave the log unchanged."""
    async with opened(factory) as storage:
        event = Deposited("a", 1, metadata={"desk": "x"})
        await storage.store_event(event)
        cursor = await park(storage, parked(1))
        letter = await only(storage)
        payload = b'{"account":"a","number":2,"amount":"7.00"}'
        begun = await storage.begin_retry(letter.id, payload, NOW)
        expect_equal(
            decode_event(begun.record).to_dict()["payload"],
            msgspec.json.decode(payload),
            "the payload to deliver",
        )
        expect_equal(
            begun.record.event_id, letter.record and letter.record.event_id, "the id of the edited event"
        )
        await storage.save_progress([Progress("sub", cursor.epoch, 1, 1, parked=(parked(1),))])
        found = (await only(storage)).record
        expect_equal(found and found.payload, payload, "the payload after it was parked again")
        expect_equal(await storage.get_event(event.event_id), event, "the event in the log")


@case()
async def an_invalid_payload_changes_nothing(factory: StorageFactory) -> None:
    """Raise DecodeError, and leave the dead letter parked and unchanged."""
    async with opened(factory) as storage:
        await storage.store_event(Deposited("a", 1))
        await park(storage, parked(1))
        letter = await only(storage)
        for payload in (b'{"account":5}', b"{", b"[]"):
            call = storage.begin_retry(letter.id, payload, NOW)
            await expect_error(DecodeError, call, f"a retry with the payload {payload!r}")
            expect_equal(await only(storage), letter, "the dead letter after a rejected edit")


@case()
async def a_discarded_dead_letter_is_gone(factory: StorageFactory) -> None:
    """Return it and remove it together with its retry; raise when it is discarded again."""
    async with opened(factory) as storage:
        await storage.store_events([Ticked(1), Ticked(2)])
        cursor = await park(storage, parked(1), parked(2))
        first, second = expect_count(2, await storage.list_dead_letters(), "dead letters")
        await storage.begin_retry(first.id, None, NOW)
        gone = await storage.discard_dead_letter(first.id)
        expect_equal((gone.id, gone.position), (first.id, 1), "the dead letter that was discarded")
        expect_equal((await only(storage)).id, second.id, "the dead letter that is left")
        await expect_error(
            DeadLetterNotFoundError, storage.discard_dead_letter(first.id), "discarding it again"
        )
        expect_equal((await again(storage, cursor)).retries, (), "retries that are left")


@case()
async def a_blocking_dead_letter_counts_the_queue_behind_it(factory: StorageFactory) -> None:
    """Block the key until the dead letter is gone and the queue is empty."""
    async with opened(factory) as storage:
        await storage.store_events([Deposited("a", number) for number in range(5)])
        cursor = await take(storage)
        epoch = cursor.epoch
        letter = parked(1, key="account/a")
        queued = (("account/a", 2), ("account/a", 3))
        await storage.save_progress([Progress("sub", epoch, 3, 3, parked=(letter,), queued=queued)])
        found = await only(storage)
        expect_equal(
            (found.key, found.queued),
            ("account/a", 2),
            "its key, and how many deliveries are queued behind it",
        )
        expect_equal(await storage.get_dead_letter(found.id), found, "the same dead letter by its id")
        cursor = await again(storage, cursor)
        expect_equal(cursor.blocked_keys, ("account/a",), "blocked keys while it is parked")
        await storage.begin_retry(found.id, None, NOW)
        await storage.save_progress([Progress("sub", cursor.epoch, 3, 3, cleared=(1,))])
        cursor = await again(storage, cursor)
        expect_equal(cursor.blocked_keys, ("account/a",), "blocked keys while deliveries are still queued")
        await storage.save_progress([Progress("sub", cursor.epoch, 3, 3, cleared=(2, 3))])
        expect_equal((await again(storage, cursor)).blocked_keys, (), "blocked keys when nothing is queued")


@case()
async def parking_removes_the_retry_and_the_place_in_the_queue(factory: StorageFactory) -> None:
    """Forget a delivery's retry or its place in a queue once it is parked."""
    async with opened(factory) as storage:
        await storage.store_events([Deposited("a", number) for number in range(3)])
        cursor = await take(storage)
        first = Progress("sub", cursor.epoch, 0, 0, (), (retry(1),), queued=(("k", 2),))
        await storage.save_progress([first])
        await storage.save_progress([Progress("sub", cursor.epoch, 2, 2, parked=(parked(1), parked(2)))])
        cursor = await again(storage, cursor)
        expect_equal(
            (cursor.retries, cursor.blocked_keys), ((), ()), "retries and blocked keys after parking"
        )
        [record] = expect_count(1, await storage.list_subscriptions(), "subscriptions")
        figures = (record.parked, record.retries, record.queued)
        expect_equal(
            figures, (2, 0, 0), "dead letters, retries and queued deliveries in the list of subscriptions"
        )


@case("persistent")
async def dead_letters_survive_closing(factory: StorageFactory) -> None:
    """Find dead letters after opening again, and retries that had begun."""
    async with opened(factory) as storage:
        await storage.store_events([Deposited("a", 1), Deposited("a", 2)])
        await park(storage, parked(1), parked(2, key="account/a"))
        before = await storage.list_dead_letters()
        await storage.begin_retry(before[0].id, None, NOW)
    async with opened(factory) as storage:
        after = await storage.list_dead_letters()
        expected = [msgspec.structs.replace(before[0], state="retrying"), before[1]]
        expect_equal(after, expected, "dead letters after opening again")
        cursor = await take(storage)
        expect_equal([pending.position for pending in cursor.retries], [1], "retries after opening again")
        expect_equal(cursor.blocked_keys, ("account/a",), "blocked keys after opening again")
        expect_equal(
            await storage.begin_retry(before[0].id, None, NOW),
            None,
            "beginning a retry that has already begun",
        )
