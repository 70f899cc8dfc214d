"""The log: events are read back unchanged, once, and in order."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from pabal.domain.envelope import decode_event
from pabal.errors import (
    DuplicateEventError,
    NonFiniteNumberError,
    PayloadTooLargeError,
    StorageClosedError,
    UnregisteredEventError,
)
from pabal.ports.storage import Committed
from pabal.testing.conformance.case import StorageFactory, case, check, expect_equal, expect_error, opened
from pabal.testing.conformance.events import Audited, Deposited, Remarked, Ticked, deposits, everything


@case()
async def positions_start_at_1_and_grow(factory: StorageFactory) -> None:
    """Give the first event position 1, and each next one a higher position."""
    async with opened(factory) as storage:
        first = await storage.store_event(Ticked(1))
        expect_equal(first, 1, "the first position")
        rest = await storage.store_events(map(Ticked, range(2, 6)))
        expect_equal(len(rest), 4, "positions returned for 4 events")
        check([first, *rest] == sorted({first, *rest}), f"positions must grow: {first}, then {rest}")
        expect_equal(await storage.head(), rest[-1], "the head after the last append")


@case()
async def an_empty_log_returns_nothing(factory: StorageFactory) -> None:
    """Answer every question about an empty log without an error."""
    async with opened(factory) as storage:
        expect_equal(await storage.head(), 0, "the head of an empty log")
        expect_equal(await everything(storage), [], "what an empty log holds")
        expect_equal((await storage.read_page(0, limit=10)).rows, (), "the first page of an empty log")
        expect_equal(await storage.read_positions([1, 2]), [], "rows at positions that do not exist")
        expect_equal(await storage.get_unprocessed_events(), [], "unprocessed events of an empty log")
        expect_equal(await storage.get_event(Ticked(1).event_id), None, "an event that was never stored")
        expect_equal(await storage.get_event("no-uuid"), None, "an event of an id that is no UUID")
        expect_equal(
            (await storage.get_event_statistics())["total_events"], 0, "events counted in an empty log"
        )
        expect_equal(await storage.store_events([]), [], "positions of no events")


@case()
async def an_event_is_read_back_unchanged(factory: StorageFactory) -> None:
    """Return payload, id, time, correlation and metadata of every kind of event unchanged."""
    seoul = datetime(2024, 1, 1, 9, tzinfo=UTC).astimezone()
    stored: list[Any] = [
        Deposited("a", 1, metadata={"desk": "x", "try": 2, "share": 0.5, "dry": False, "note": None}),
        Deposited("ü €\x00\U0001f600", -(2**70), correlation_id="c-1", causation_id="c-0"),
        Ticked(3, 0.1, occurred_at=seoul),
        Audited("a", 4, occurred_at=datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
    ]
    async with opened(factory) as storage:
        await storage.store_events(stored)
        for event in stored:
            again = await storage.get_event(event.event_id)
            expect_equal(again, event, "the payload read back")
            expect_equal(again.to_dict(), event.to_dict(), "the event read back with its header")


@case()
async def the_log_is_read_in_order_from_any_position(factory: StorageFactory) -> None:
    """Iterate over envelopes above a position: all or up to a limit, of all types or some."""
    stored = [Deposited("a", 1), Ticked(2), Deposited("b", 3), Ticked(4), Audited("a", 5)]
    async with opened(factory) as storage:
        before = datetime.now(UTC)
        positions = await storage.store_events(stored)
        envelopes = [envelope async for envelope in storage.read()]
        expect_equal([one.event for one in envelopes], stored, "the whole log")
        expect_equal([one.position for one in envelopes], positions, "the positions of the whole log")
        expect_equal(
            [one.event_id for one in envelopes], [event.event_id for event in stored], "the event ids"
        )
        for one in envelopes:
            recorded = one.recorded_at
            check(recorded.utcoffset() == timedelta(), f"recorded_at must be UTC, it is {recorded!r}")
            near = before - timedelta(seconds=1) <= recorded <= datetime.now(UTC) + timedelta(seconds=1)
            check(near, f"recorded_at must be when it was stored, it is {recorded}")
        for after, types, limit, expected in (
            (positions[2], None, None, stored[3:]),
            (0, None, 2, stored[:2]),
            (positions[0], None, 1, stored[1:2]),
            (0, [Ticked], None, [stored[1], stored[3]]),
            (0, ["conformance.ticked", Audited], 2, [stored[1], stored[3]]),
            (positions[-1], None, None, []),
            (0, None, 0, []),
            (0, [], None, []),
        ):
            found = [one.event async for one in storage.read(after, types=types, limit=limit)]
            expect_equal(found, expected, f"read({after}, types={types}, limit={limit})")


@case()
async def pages_cover_the_log_without_gap_or_overlap(factory: StorageFactory) -> None:
    """Return pages that join without gap or overlap, whatever their size and filter."""
    stored = [Ticked(number) if number % 3 else Deposited("a", number) for number in range(1, 24)]
    async with opened(factory) as storage:
        positions = await storage.store_events(stored)
        for types, wanted in (
            (None, positions),
            (
                ["conformance.deposited"],
                [p for p, e in zip(positions, stored, strict=True) if e.number % 3 == 0],
            ),
            (["conformance.nothing"], []),
        ):
            for limit in (1, 4, 100):
                after, found = 0, []
                while True:
                    page = await storage.read_page(after, limit=limit, types=types)
                    rows = [row.position for row in page.rows]
                    check(len(rows) <= limit, f"a page of {limit} has {len(rows)} rows")
                    check(
                        all(after < p <= page.upto for p in rows), f"a page ({after}, {page.upto}] has {rows}"
                    )
                    found += rows
                    if page.upto == after:
                        break
                    after = page.upto
                expect_equal(found, wanted, f"positions over pages of {limit} with types={types}")
                expect_equal(after, positions[-1], f"where the pages of {limit} with types={types} end")


@case()
async def rows_are_found_by_position(factory: StorageFactory) -> None:
    """Return the rows at the given positions in order, without positions that do not exist."""
    async with opened(factory) as storage:
        positions = await storage.store_events(map(Ticked, range(1, 6)))
        asked = [positions[3], positions[-1] + 7, positions[0], positions[3]]
        rows = await storage.read_positions(asked)
        expect_equal(
            [row.position for row in rows], [positions[0], positions[3]], "positions of the rows found"
        )
        expect_equal([decode_event(row) for row in rows], [Ticked(1), Ticked(4)], "events of the rows found")


@case()
async def a_repeated_event_is_stored_once(factory: StorageFactory) -> None:
    """Return the first position for an event that is already stored, alone or in a batch."""
    first, second = Deposited("a", 1), Deposited("a", 2)
    async with opened(factory) as storage:
        position = await storage.store_event(first)
        expect_equal(
            await storage.store_event(first), position, "the position of an event that was stored before"
        )
        again = await storage.store_events([first, second, second])
        check(again[0] == position < again[1] == again[2], f"positions of [old, new, the same new]: {again}")
        expect_equal(await everything(storage), [first, second], "the log")
        expect_equal(await storage.get_events_by_aggregate("a", "account"), [first, second], "the stream")


@case()
async def an_aggregate_without_a_type_is_found_by_the_empty_type(factory: StorageFactory) -> None:
    """Return its events for the type ``""``, and without a type; not those of another type."""
    async with opened(factory) as storage:
        await storage.store_events([Remarked("a"), Deposited("a", 1), Remarked("b")])
        expect_equal(
            await storage.get_events_by_aggregate("a", ""), [Remarked("a")], "events of a, of no type"
        )
        both = await storage.get_events_by_aggregate("a")
        expect_equal(both, [Remarked("a"), Deposited("a", 1)], "events of a, of any type")
        expect_equal(
            await storage.get_events_by_aggregate("b", "account"), [], "events of b, of another type"
        )


@case()
async def an_id_with_different_content_is_rejected(factory: StorageFactory) -> None:
    """Raise DuplicateEventError with id and position, and store nothing of the batch."""
    event = Deposited("a", 1)
    others = (
        Deposited("a", 2, event_id=event.event_id),
        Deposited("b", 1, event_id=event.event_id),
        Audited("a", 1, event_id=event.event_id),
    )
    async with opened(factory) as storage:
        position = await storage.store_event(event)
        for other in others:
            what = f"{other!r} under the id of {event!r}"
            error = await expect_error(DuplicateEventError, storage.store_events([Ticked(1), other]), what)
            expect_equal(
                (error.event_id, error.position),
                (event.event_id, position),
                "the event_id and position in the error",
            )
        twins = [Ticked(1), Ticked(2, event_id=Ticked(3).event_id)]
        twins.append(Ticked(4, event_id=twins[1].event_id))
        await expect_error(
            DuplicateEventError, storage.store_events(twins), "two contents of one id in one batch"
        )
        expect_equal(await everything(storage), [event], "the log")


@case()
async def a_batch_with_an_invalid_event_stores_nothing(factory: StorageFactory) -> None:
    """Reject the whole batch if one event cannot be stored."""
    bad: list[tuple[type[BaseException], Any]] = [
        (NonFiniteNumberError, Ticked(1, float("nan"))),
        (UnregisteredEventError, object()),
        (PayloadTooLargeError, Deposited("x" * 3_000_000, 1)),
    ]
    async with opened(factory) as storage:
        for kind, event in bad:
            what = f"a batch with an event that must raise {kind.__name__}"
            await expect_error(kind, storage.store_events([Ticked(1), event, Ticked(2)]), what)
        expect_equal(await everything(storage), [], "the log after rejected batches")
        expect_equal(await storage.store_event(Ticked(1)), 1, "the position of the first valid event")


@case()
async def listeners_receive_every_commit_in_order(factory: StorageFactory) -> None:
    """Call listeners with the new events before their publisher resumes, until they are removed."""
    heard: list[Committed] = []
    async with opened(factory) as storage:
        remove = storage.add_listener(heard.append)
        old = Ticked(0)
        for batch in ([old], [Ticked(1), Ticked(2)], [old, Ticked(3)]):
            positions = await storage.store_events(batch)
            known = {one.first + at: event for one in heard for at, event in enumerate(one.events)}
            expect_equal(
                [known.get(p) for p in positions], batch, "events received before the append returned"
            )
        firsts = [one.first for one in heard]
        expect_equal(firsts, sorted(firsts), "the order in which commits were received")
        expect_equal(sum(len(one.events) for one in heard), 4, "events received, each once")
        remove()
        await storage.store_event(Ticked(9))
        expect_equal(
            sum(len(one.events) for one in heard), 4, "events received after the listener was removed"
        )


@case()
async def concurrent_appends_keep_the_order_of_each_caller(factory: StorageFactory) -> None:
    """Give the events of 20 concurrent publishers distinct positions, in each publisher's order."""

    async def publish(storage: Any, account: str) -> list[int]:
        return [await storage.store_event(event) for event in deposits(account, range(10))]

    async with opened(factory) as storage:
        accounts = [f"a{number}" for number in range(20)]
        given = await asyncio.gather(*(publish(storage, account) for account in accounts))
        flat = sorted(position for positions in given for position in positions)
        check(len(set(flat)) == 200, "two events were given one position")
        envelopes = [envelope async for envelope in storage.read()]
        expect_equal([one.position for one in envelopes], flat, "positions as read")
        for account, positions in zip(accounts, given, strict=True):
            check(positions == sorted(positions), f"positions of one publisher must grow: {positions}")
            stream = await storage.get_events_by_aggregate(account, "account")
            expect_equal(stream, deposits(account, range(10)), f"the stream of {account}")


@case()
async def a_cancelled_append_is_stored_completely_or_not_at_all(factory: StorageFactory) -> None:
    """Store a cancelled append as a whole or not at all; a second try leaves its events stored once."""
    async with opened(factory) as storage:
        for turns in range(8):
            events = [Ticked(10 * turns), Ticked(10 * turns + 1)]
            task = asyncio.ensure_future(storage.store_events(events))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            positions = await storage.store_events(events)
            found = [one.event for one in [e async for e in storage.read()] if one.position in positions]
            expect_equal(found, events, "what lies at the positions of the second try")
        expect_equal(len(await everything(storage)), 16, "events in the log")


@case()
async def statistics_count_the_stored_events(factory: StorageFactory) -> None:
    """Count events by type and aggregate type, and return the first and last position and time."""
    early, late = datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
    stored = [
        Deposited("a", 1, occurred_at=late),
        Deposited("b", 2, occurred_at=early),
        Audited("a", 3, occurred_at=early),
        Ticked(4, occurred_at=early),
    ]
    async with opened(factory) as storage:
        positions = await storage.store_events(stored)
        figures = await storage.get_event_statistics()
        expect_equal(figures["total_events"], 4, "total_events")
        types = {"conformance.audited": 1, "conformance.deposited": 2, "conformance.ticked": 1}
        expect_equal(figures["events_by_type"], types, "events_by_type")
        expect_equal(figures["events_by_aggregate"], {"account": 2, "audit": 1}, "events_by_aggregate")
        ends = figures["first_position"], figures["last_position"]
        expect_equal(ends, (positions[0], positions[-1]), "first_position and last_position")
        times = figures["first_occurred_at"], figures["last_occurred_at"]
        expect_equal(times, (early, late), "first_occurred_at and last_occurred_at")


@case()
async def events_can_be_marked_as_processed(factory: StorageFactory) -> None:
    """Without any subscription, return every event that was not marked as processed."""
    stored = [Ticked(number) for number in range(4)]
    async with opened(factory) as storage:
        await storage.store_events(stored)
        expect_equal(await storage.mark_event_processed(stored[1].event_id, "sent"), True, "marking an event")
        expect_equal(await storage.mark_event_processed(stored[1].event_id), True, "marking it again")
        expect_equal(
            await storage.mark_event_processed(Ticked(9).event_id), False, "marking an unknown event"
        )
        expect_equal(await storage.mark_event_processed("no-uuid"), False, "marking an id that is no UUID")
        left = [stored[0], stored[2], stored[3]]
        expect_equal(await storage.get_unprocessed_events(), left, "unprocessed events")
        expect_equal(
            await storage.get_unprocessed_events(limit=2), left[:2], "the first two unprocessed events"
        )


@case()
async def a_closed_storage_rejects_appends(factory: StorageFactory) -> None:
    """Raise StorageClosedError after closing; closing twice is allowed."""
    async with opened(factory) as storage:
        await storage.store_event(Ticked(1))
        await storage.aclose()
        await expect_error(StorageClosedError, storage.store_event(Ticked(2)), "an append after closing")
        await storage.aclose()


@case("persistent")
async def the_log_survives_closing(factory: StorageFactory) -> None:
    """Find every event after opening again, and continue with the next position."""
    async with opened(factory) as storage:
        positions = await storage.store_events([Deposited("a", 1), Ticked(2)])
    async with opened(factory) as storage:
        expect_equal(await storage.head(), positions[-1], "the head after opening again")
        expect_equal(await everything(storage), [Deposited("a", 1), Ticked(2)], "the log after opening again")
        check(
            await storage.store_event(Ticked(3)) > positions[-1],
            "positions must continue after opening again",
        )


@case("persistent")
async def a_repeated_event_is_known_after_closing(factory: StorageFactory) -> None:
    """Return the first position of an event that was stored before a restart."""
    event = Deposited("a", 1)
    async with opened(factory) as storage:
        position = await storage.store_event(event)
    async with opened(factory) as storage:
        expect_equal(await storage.store_event(event), position, "the position of an event stored before")
        expect_equal(await everything(storage), [event], "the log")


@case("shared")
async def storages_read_what_each_other_writes(factory: StorageFactory) -> None:
    """Let two storages on the same data append in turn and see each other's events and head."""
    async with opened(factory) as left, opened(factory) as right:
        for number in range(1, 7):
            writer, reader = (left, right) if number % 2 else (right, left)
            position = await writer.store_event(Deposited("a", number))
            expect_equal(position, number, "positions given in turn by two storages")
            expect_equal(await reader.head(), position, "the head as the other sees it")
        expected = deposits("a", range(1, 7))
        for one in (left, right):
            expect_equal(await everything(one), expected, "the log as each sees it")
            expect_equal(
                await one.get_events_by_aggregate("a", "account"), expected, "the stream as each sees it"
            )


@case("shared")
async def poll_head_reports_appends_of_other_storages(factory: StorageFactory) -> None:
    """Return the head once after another storage has moved it, and None otherwise."""
    async with opened(factory) as left, opened(factory) as right:
        await left.store_event(Ticked(1))
        right.poll_head()
        expect_equal(right.poll_head(), None, "polling when nothing was written")
        position = await left.store_event(Ticked(2))
        expect_equal(right.poll_head(), position, "polling after the other wrote")
        expect_equal(right.poll_head(), None, "polling again")
