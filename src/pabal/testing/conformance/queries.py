"""Queries: find events by type, aggregate, chain of causes and time, page by page from either end."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pabal.domain.envelope import to_envelope
from pabal.errors import UsageError
from pabal.ports.storage import LogFilter
from pabal.testing.conformance.case import StorageFactory, case, expect_equal, expect_error, opened
from pabal.testing.conformance.dead_letters import park, parked
from pabal.testing.conformance.events import Deposited, Ticked

NEEDS = ("searchable",)


async def filled(storage: Any) -> list[Any]:
    """Append a small chain of causes among other events, and return all of them."""
    root = Ticked(1)
    first = Deposited("a", 2, correlation_id=root.event_id, causation_id=root.event_id)
    events = [
        root,
        Deposited("b", 1),
        first,
        Ticked(2),
        Deposited("a", 3, correlation_id=root.event_id, causation_id=first.event_id),
        Ticked(3, correlation_id="a chain that began elsewhere"),
        Deposited("b", 4),
    ]
    for event in events:
        await storage.store_event(event)
    return events


async def found(storage: Any, wanted: LogFilter, **page: Any) -> list[int]:
    """Return the positions of the events that match a filter."""
    return [row.position for row in await storage.find_events(wanted, **page)]


async def _next_page(storage: Any, wanted: LogFilter, pages: list[int], newest_first: bool) -> list[int]:
    if newest_first:
        before = pages[-1] if pages else None
        return await found(storage, wanted, before=before, limit=2, newest_first=True)
    return await found(storage, wanted, after=pages[-1] if pages else 0, limit=2)


TICKED, DEPOSITED = "conformance.ticked", "conformance.deposited"


@case()
async def events_are_found_by_type_aggregate_and_causes(factory: StorageFactory) -> None:
    """Return the events that match every given part of the filter, from either end."""
    async with opened(factory) as storage:
        events = await filled(storage)
        root = events[0].event_id
        for wanted, expected in (
            (LogFilter(), [1, 2, 3, 4, 5, 6, 7]),
            (LogFilter(types=(TICKED,)), [1, 4, 6]),
            (LogFilter(types=(TICKED, DEPOSITED, TICKED)), [1, 2, 3, 4, 5, 6, 7]),
            (LogFilter(types=("unknown",)), []),
            (LogFilter(aggregate_id="a"), [3, 5]),
            (LogFilter(aggregate_id="b", aggregate_type=events[1].aggregate_type), [2, 7]),
            (LogFilter(aggregate_id="b", aggregate_type="another"), []),
            (LogFilter(aggregate_id="a", types=(TICKED,)), []),
            (LogFilter(correlation_id=root), [1, 3, 5]),
            (LogFilter(correlation_id=root, types=(DEPOSITED,)), [3, 5]),
            (LogFilter(correlation_id="a chain that began elsewhere"), [6]),
            (LogFilter(correlation_id="unheard of"), []),
            (LogFilter(causation_id=root), [3]),
            (LogFilter(correlation_id=root, causation_id=events[2].event_id), [5]),
        ):
            expect_equal(await found(storage, wanted), expected, f"what matches {wanted}")
            backwards = await found(storage, wanted, newest_first=True)
            expect_equal(backwards, expected[::-1], f"what matches {wanted}, newest first")


@case()
async def pages_continue_where_the_last_one_ended(factory: StorageFactory) -> None:
    """Return up to ``limit`` events strictly between two positions; each page begins where the last ended."""
    async with opened(factory) as storage:
        await filled(storage)
        for wanted in (LogFilter(), LogFilter(types=(TICKED,)), LogFilter(types=(TICKED, DEPOSITED))):
            expected = await found(storage, wanted)
            for newest_first in (False, True):
                pages: list[int] = []
                while page := await _next_page(storage, wanted, pages, newest_first):
                    pages += page
                    # Without this check, a backend that loses its place would loop for ever.
                    expect_equal(len(set(pages)), len(pages), f"positions of {wanted} without repetitions")
                expect_equal(
                    pages, expected[::-1] if newest_first else expected, f"pages of {wanted}, {newest_first=}"
                )
        expect_equal(await found(storage, LogFilter(), after=2, before=6), [3, 4, 5], "between two positions")
        expect_equal(
            await found(storage, LogFilter(), after=5, before=6), [], "between neighbouring positions"
        )
        expect_equal(await found(storage, LogFilter(), after=-4, before=99, limit=1), [1], "beyond both ends")


@case()
async def events_are_found_by_recording_time(factory: StorageFactory) -> None:
    """Include ``since`` and exclude ``until``; times in the log never go back."""
    async with opened(factory) as storage:
        await filled(storage)
        rows = await storage.find_events(LogFilter())
        times = [to_envelope(row).recorded_at for row in rows]
        expect_equal(times, sorted(times), "times at which events were recorded")
        for since in (None, times[0], times[3], times[-1] + timedelta(seconds=1)):
            for until in (None, times[0], times[3], times[-1] + timedelta(seconds=1)):
                expected = [
                    row.position
                    for row, time in zip(rows, times, strict=True)
                    if (since is None or time >= since) and (until is None or time < until)
                ]
                wanted = LogFilter(since=since, until=until)
                expect_equal(await found(storage, wanted), expected, f"what was recorded in {wanted}")


@case()
async def an_aggregate_type_alone_is_rejected_as_a_filter(factory: StorageFactory) -> None:
    """Raise UsageError for a filter that no index supports, and for a time without an offset."""
    async with opened(factory) as storage:
        call = storage.find_events(LogFilter(aggregate_type="account"))
        await expect_error(UsageError, call, "filtering by aggregate_type alone")
        call = storage.find_events(LogFilter(since=datetime(2026, 1, 1)))
        await expect_error(UsageError, call, "filtering by a naive time")


@case()
async def types_are_listed_once_and_sorted(factory: StorageFactory) -> None:
    """Return the names of all types in the log."""
    async with opened(factory) as storage:
        expect_equal(await storage.list_event_types(), [], "types in an empty log")
        await filled(storage)
        expect_equal(await storage.list_event_types(), [DEPOSITED, TICKED], "types in the log")


@case()
async def dead_letters_are_counted_by_subscription_and_error(factory: StorageFactory) -> None:
    """Return the largest group first, with first and last time and the newest id."""
    async with opened(factory) as storage:
        await storage.store_events([Ticked(number) for number in range(5)])
        expect_equal(await storage.group_dead_letters(), [], "groups of no dead letters")
        await park(storage, parked(1), parked(2, error_type="KeyError"), parked(3))
        await park(storage, parked(4), name="other")
        letters = await storage.list_dead_letters()
        groups = await storage.group_dead_letters()
        counted = [(group.subscription, group.error_type, group.count) for group in groups]
        expected = [("sub", "ValueError", 2), ("other", "ValueError", 1), ("sub", "KeyError", 1)]
        expect_equal(counted, expected, "groups of dead letters")
        both = [letters[0], letters[2]]
        times = sorted(letter.parked_at for letter in both)
        shown = (groups[0].first_parked_at, groups[0].last_parked_at, groups[0].newest_id)
        expect_equal(shown, (times[0], times[-1], both[-1].id), "times and newest id of a group")
