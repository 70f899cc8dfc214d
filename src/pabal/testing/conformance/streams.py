"""Streams: the numbered events of one aggregate, and appends at an expected version."""

from __future__ import annotations

import asyncio
from typing import Any

from pabal.errors import ConcurrencyError, InvalidEventError
from pabal.testing.conformance.case import StorageFactory, case, check, expect_equal, expect_error, opened
from pabal.testing.conformance.events import Audited, Deposited, Ticked, deposits, everything

NEEDS = ("versioned",)


async def versions(storage: Any) -> list[tuple[str, int | None]]:
    """Return (aggregate id, stream version) of every event of a log, in order."""
    return [(envelope.event.aggregate_id, envelope.stream_version) async for envelope in storage.read()]


@case()
async def versions_count_from_1_in_each_stream(factory: StorageFactory) -> None:
    """Count each aggregate's events separately; an event of no aggregate has no version."""
    async with opened(factory) as storage:
        await storage.store_events([Deposited("a", 1), Deposited("b", 1), Ticked(1), Deposited("a", 2)])
        await storage.store_event(Deposited("a", 3))
        expected = [("a", 1), ("b", 1), (None, None), ("a", 2), ("a", 3)]
        expect_equal(await versions(storage), expected, "aggregate ids and versions")


@case()
async def a_stream_is_read_in_version_order(factory: StorageFactory) -> None:
    """Return an aggregate's events, of one type or of all types with its id; none for an unknown id."""
    async with opened(factory) as storage:
        await storage.store_events([Deposited("a", 1), Audited("a", 2), Deposited("b", 3), Deposited("a", 4)])
        stream = await storage.get_events_by_aggregate("a", "account")
        expect_equal(stream, [Deposited("a", 1), Deposited("a", 4)], "the stream account/a")
        expect_equal(
            await storage.get_events_by_aggregate("a", "audit"), [Audited("a", 2)], "the stream audit/a"
        )
        both = await storage.get_events_by_aggregate("a")
        expect_equal(
            [event.number for event in both], [1, 2, 4], "events of every aggregate type with the id a"
        )
        expect_equal(
            await storage.get_events_by_aggregate("nobody", "account"), [], "a stream that does not exist"
        )
        expect_equal(await storage.get_events_by_aggregate("a", "nothing"), [], "a type that does not exist")


@case()
async def one_id_under_two_types_is_two_streams(factory: StorageFactory) -> None:
    """Count and check account/a and audit/a separately."""
    async with opened(factory) as storage:
        await storage.append("account", "a", [Deposited("a", 1)], expected_version=0)
        await storage.append("audit", "a", [Audited("a", 2)], expected_version=0)
        expect_equal(await versions(storage), [("a", 1), ("a", 1)], "versions of account/a and audit/a")


@case()
async def an_append_at_the_current_version_succeeds(factory: StorageFactory) -> None:
    """Append at the expected version (0: the stream does not exist yet), and return the positions."""
    async with opened(factory) as storage:
        first = await storage.append("account", "a", deposits("a", range(2)), expected_version=0)
        second = await storage.append("account", "a", [Deposited("a", 2)], expected_version=2)
        check([*first, *second] == sorted({*first, *second}), f"positions must grow: {first}, then {second}")
        stream = await storage.get_events_by_aggregate("a", "account")
        expect_equal(stream, deposits("a", range(3)), "the stream")


@case()
async def an_append_at_another_version_is_rejected(factory: StorageFactory) -> None:
    """Raise ConcurrencyError with both versions, and append nothing."""
    async with opened(factory) as storage:
        await storage.store_events(deposits("a", range(3)))
        for expected, account in ((0, "a"), (2, "a"), (4, "a"), (1, "new")):
            what = f"an append to account/{account} at version {expected}"
            call = storage.append(
                "account", account, deposits(account, range(9, 11)), expected_version=expected
            )
            error = await expect_error(ConcurrencyError, call, what)
            found = (error.aggregate_type, error.aggregate_id, error.expected_version, error.actual_version)
            expect_equal(
                found,
                ("account", account, expected, 3 if account == "a" else 0),
                f"the fields of the error of {what}",
            )
        expect_equal(await everything(storage), deposits("a", range(3)), "the log after rejected appends")


@case()
async def an_append_without_a_version_is_not_checked(factory: StorageFactory) -> None:
    """Append at whatever version the stream has."""
    async with opened(factory) as storage:
        for numbers in (range(2), range(2, 4)):
            await storage.append("account", "a", deposits("a", numbers), expected_version=None)
        expect_equal(
            await storage.get_events_by_aggregate("a", "account"), deposits("a", range(4)), "the stream"
        )


@case()
async def an_event_of_another_aggregate_is_rejected(factory: StorageFactory) -> None:
    """Raise InvalidEventError for an event that names another stream, and append nothing."""
    async with opened(factory) as storage:
        for stranger in (Deposited("b", 1), Audited("a", 1), Ticked(1)):
            call = storage.append("account", "a", [Deposited("a", 1), stranger], expected_version=0)
            await expect_error(InvalidEventError, call, f"{stranger!r} in the stream account/a")
        expect_equal(await everything(storage), [], "the log after rejected appends")


@case()
async def a_repeated_append_succeeds(factory: StorageFactory) -> None:
    """Return the first positions although the version has moved: a caller may have lost the reply."""
    events = deposits("a", range(2))
    async with opened(factory) as storage:
        first = await storage.append("account", "a", events, expected_version=0)
        again = await storage.append("account", "a", events, expected_version=0)
        expect_equal(again, first, "positions of the same append again")
        expect_equal(await everything(storage), events, "the log")


@case()
async def only_one_append_at_a_version_succeeds(factory: StorageFactory) -> None:
    """Let exactly one of ten concurrent appends at one version succeed."""
    async with opened(factory) as storage:
        await storage.store_event(Deposited("a", 0))
        calls = [
            storage.append("account", "a", [Deposited("a", number)], expected_version=1)
            for number in range(1, 11)
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        won = [number for number, result in enumerate(results, 1) if isinstance(result, list)]
        lost = [result for result in results if isinstance(result, ConcurrencyError)]
        expect_equal((len(won), len(lost)), (1, 9), "how many of ten appends won and lost")
        expect_equal(await everything(storage), [Deposited("a", 0), Deposited("a", won[0])], "the log")


@case()
async def a_rejected_append_does_not_affect_concurrent_ones(factory: StorageFactory) -> None:
    """Keep versions right when appends that fail and appends that succeed are made at the same time."""
    async with opened(factory) as storage:
        calls: list[Any] = []
        for number in range(20):
            if number % 2:
                calls.append(storage.append("account", "a", [Deposited("a", -1)], expected_version=99))
            else:
                calls.append(storage.store_event(Deposited("a", number)))
        await asyncio.gather(*calls, return_exceptions=True)
        expect_equal(
            await versions(storage), [("a", number) for number in range(1, 11)], "versions of the stream"
        )
        await storage.append("account", "a", [Deposited("a", 20)], expected_version=10)


@case("persistent")
async def versions_continue_after_closing(factory: StorageFactory) -> None:
    """Know every stream's version after opening again."""
    async with opened(factory) as storage:
        await storage.store_events([*deposits("a", range(2)), Audited("a", 9)])
    async with opened(factory) as storage:
        call = storage.append("account", "a", [Deposited("a", 2)], expected_version=1)
        await expect_error(
            ConcurrencyError, call, "an append at a version that has passed, after opening again"
        )
        await storage.append("account", "a", [Deposited("a", 2)], expected_version=2)
        stream = await storage.get_events_by_aggregate("a", "account")
        expect_equal(stream, deposits("a", range(3)), "the stream after opening again")


@case("shared")
async def versions_are_checked_against_other_storages_appends(factory: StorageFactory) -> None:
    """Reject an append at a version that another storage on the same data has already passed."""
    async with opened(factory) as left, opened(factory) as right:
        await left.append("account", "a", [Deposited("a", 1)], expected_version=0)
        await right.append("account", "a", [Deposited("a", 2)], expected_version=1)
        call = left.append("account", "a", [Deposited("a", 9)], expected_version=1)
        error = await expect_error(
            ConcurrencyError, call, "an append at a version that the other storage has passed"
        )
        expect_equal(error.actual_version, 2, "the actual_version in the error")
        await left.append("account", "a", [Deposited("a", 3)], expected_version=2)
        for one in (left, right):
            stream = await one.get_events_by_aggregate("a", "account")
            expect_equal(stream, deposits("a", range(1, 4)), "the stream as each sees it")
