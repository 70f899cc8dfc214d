"""Aggregates: appends to several streams, histories, and snapshots."""

from __future__ import annotations

import asyncio
from typing import Any

from pabal.domain.aggregate import Aggregate, applies
from pabal.domain.envelope import decode_event
from pabal.errors import ConcurrencyError, DuplicateEventError, PayloadTooLargeError
from pabal.eventsourcing import Repository
from pabal.ports.storage import Committed, StreamAppend
from pabal.testing.conformance.case import StorageFactory, case, check, expect_equal, expect_error, opened
from pabal.testing.conformance.events import Audited, Deposited, Ticked, deposits, everything

NEEDS = ("versioned", "aggregates")

IDS = (
    "a",
    "A",
    "a ",
    " a",
    "a/b",
    "a'\"%_;--",
    "계좌-1",
    "e\u0301",
    "\u00e9",
    "\U0001f600",
    "long" * 500,
    "long" * 500 + "er",
)
"""Ids of different streams; a backend that folds case, trims, normalizes or truncates would merge some."""


def to_account(account: str, version: int, *numbers: int) -> StreamAppend:
    """Return an append of deposits to an account that must be at ``version``."""
    events = tuple(Deposited(account, number) for number in numbers)
    return StreamAppend("account", account, version, events)


async def append(storage: Any, *changes: StreamAppend) -> list[int]:
    """Append to several streams and wait; errors come only from awaiting it."""
    positions: list[int] = await storage.append_streams(changes)
    return positions


async def history(storage: Any, account: str, after: int = 0, kind: str = "account") -> list[tuple[int, Any]]:
    """Return (version, number) of each row of a stream's history."""
    rows = await storage.read_history(kind, account, after)
    found: list[tuple[int, Any]] = []
    for row in rows:
        event: Any = decode_event(row)
        expect_equal((row.aggregate_type, row.aggregate_id), (kind, account), "the stream that a row names")
        found.append((row.stream_version, event.number))
    return found


# -- several streams ----------------------------------------------------------------------------------------


@case()
async def one_append_writes_to_several_streams(factory: StorageFactory) -> None:
    """Store the events of several streams in the given order, with versions counted per stream."""
    async with opened(factory) as storage:
        await storage.store_events(deposits("a", range(2)))
        audit = StreamAppend("audit", "a", 0, (Audited("a", 9),))
        positions = await append(storage, to_account("a", 2, 2, 3), to_account("b", 0, 4), audit)
        expect_equal(len(positions), 4, "positions of 4 events")
        check(positions == sorted(set(positions)), f"positions must grow: {positions}")
        stored = [*deposits("a", range(4)), Deposited("b", 4), Audited("a", 9)]
        expect_equal(await everything(storage), stored, "the log")
        expect_equal(await history(storage, "a"), [(n + 1, n) for n in range(4)], "the history of account/a")
        expect_equal(await history(storage, "b"), [(1, 4)], "the history of account/b")
        expect_equal(await history(storage, "a", kind="audit"), [(1, 9)], "the history of audit/a")


@case()
async def a_version_conflict_in_one_stream_stores_nothing(factory: StorageFactory) -> None:
    """Raise ConcurrencyError for the first stream at another version; leave no event and no gap behind."""
    async with opened(factory) as storage:
        await append(storage, to_account("a", 0, 0), to_account("b", 0, 1, 2))
        for expected in (0, 1, 3):
            for changes in (
                (to_account("a", 1, 7, 8), to_account("b", expected, 9), to_account("new", 0, 9)),
                (to_account("b", expected, 9), to_account("new", 5, 9), to_account("a", 1, 7)),
            ):
                what = f"an append that takes account/b, which is at 2, to be at {expected}"
                error = await expect_error(ConcurrencyError, append(storage, *changes), what)
                found = (error.aggregate_type, error.aggregate_id, error.expected_version)
                expect_equal(found, ("account", "b", expected), f"the fields of the error of {what}")
                expect_equal(error.actual_version, 2, f"the actual_version in the error of {what}")
        stored = [Deposited("a", 0), Deposited("b", 1), Deposited("b", 2)]
        expect_equal(await everything(storage), stored, "the log after rejected appends")
        expect_equal(await history(storage, "new"), [], "the history of a stream that was never begun")
        await append(storage, to_account("b", 2, 3), to_account("a", 1, 4), to_account("new", 0, 5))
        expect_equal(await history(storage, "a"), [(1, 0), (2, 4)], "the history of account/a")
        expect_equal(await history(storage, "b"), [(1, 1), (2, 2), (3, 3)], "the history of account/b")
        expect_equal(await history(storage, "new"), [(1, 5)], "the history of account/new")


@case()
async def an_invalid_event_in_one_stream_stores_nothing(factory: StorageFactory) -> None:
    """Raise the error of an event in the last stream, and append to no stream."""
    async with opened(factory) as storage:
        known = Deposited("a", 0)
        await storage.store_event(known)
        other = Deposited("b", 1, event_id=known.event_id)
        large = Deposited("b" * (storage.max_payload_bytes + 1), 1)
        for kind, event in ((DuplicateEventError, other), (PayloadTooLargeError, large)):
            change = StreamAppend("account", event.account, 0, (event,))
            call = append(storage, to_account("a", 1, 7), to_account("c", 0, 8), change)
            await expect_error(kind, call, f"an append with an event of {kind.__name__}")
        expect_equal(await everything(storage), [known], "the log after rejected appends")
        await append(storage, to_account("a", 1, 1), to_account("c", 0, 2))
        expect_equal(await history(storage, "a"), [(1, 0), (2, 1)], "the history of account/a")
        expect_equal(await history(storage, "c"), [(1, 2)], "the history of account/c")


@case()
async def a_repeated_append_to_several_streams_succeeds(factory: StorageFactory) -> None:
    """Return the first positions although versions have moved: a caller may have lost the reply."""
    changes = (to_account("a", 0, 0, 1), to_account("b", 0, 2))
    async with opened(factory) as storage:
        first = await append(storage, *changes)
        expect_equal(await append(storage, *changes), first, "positions of the same append again")
        expect_equal(len(await everything(storage)), 3, "events in the log")


@case()
async def appends_take_effect_in_the_order_of_their_calls(factory: StorageFactory) -> None:
    """Let a later call expect the versions that an earlier one creates, before either is awaited."""
    async with opened(factory) as storage:
        calls = [
            storage.append_streams((to_account("a", n, n), to_account("b", 2 * n, n, n))) for n in range(30)
        ]
        check(all([await call for call in calls]), "every append returns positions")
        expect_equal(await history(storage, "a"), [(n + 1, n) for n in range(30)], "the history of account/a")
        expect_equal(
            await history(storage, "b"), [(n + 1, n // 2) for n in range(60)], "the history of account/b"
        )


@case()
async def appends_that_build_on_a_rejected_append_are_rejected(factory: StorageFactory) -> None:
    """Reject calls that expect the versions of a rejected append, and accept all others."""
    async with opened(factory) as storage:
        calls = [
            storage.append_streams(changes)
            for changes in (
                (to_account("a", 0, 0), to_account("b", 1, 0)),
                (to_account("a", 1, 1),),
                (to_account("b", 0, 2), to_account("a", 0, 2)),
                (to_account("b", 1, 3), to_account("a", 1, 3)),
            )
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        stored = [isinstance(result, list) for result in results]
        expect_equal(stored, [False, False, True, True], f"which of four appends were stored ({results})")
        expect_equal(await history(storage, "a"), [(1, 2), (2, 3)], "the history of account/a")
        expect_equal(await history(storage, "b"), [(1, 2), (2, 3)], "the history of account/b")


@case()
async def only_one_of_several_appends_to_a_shared_stream_succeeds(factory: StorageFactory) -> None:
    """Let exactly one of ten appends at one version succeed, with all its streams and no other's."""
    async with opened(factory) as storage:
        calls = [append(storage, to_account(f"own-{n}", 0, n), to_account("shared", 0, n)) for n in range(10)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        won = [n for n, result in enumerate(results) if isinstance(result, list)]
        lost = [result for result in results if isinstance(result, ConcurrencyError)]
        expect_equal((len(won), len(lost)), (1, 9), "how many of ten appends won and lost")
        expect_equal(await history(storage, "shared"), [(1, won[0])], "the history of account/shared")
        for n in range(10):
            expect_equal(
                await history(storage, f"own-{n}"),
                [(1, n)] if n in won else [],
                f"the history of account/own-{n}",
            )


@case()
async def listeners_receive_an_append_to_several_streams(factory: StorageFactory) -> None:
    """Call listeners with every event and position before an append returns, and not if it is rejected."""
    heard: list[Committed] = []
    async with opened(factory) as storage:
        storage.add_listener(heard.append)
        positions = await append(storage, to_account("a", 0, 0, 1), to_account("b", 0, 2))
        known = {one.first + at: event for one in heard for at, event in enumerate(one.events)}
        expect_equal(
            [known.get(p) for p in positions],
            [*deposits("a", range(2)), Deposited("b", 2)],
            "events received",
        )
        call = append(storage, to_account("a", 2, 7), to_account("b", 0, 8))
        await expect_error(ConcurrencyError, call, "an append at a version that has passed")
        expect_equal(sum(len(one.events) for one in heard), 3, "number of events received")


# -- history ------------------------------------------------------------------------------------------------


@case()
async def a_history_is_read_after_a_version(factory: StorageFactory) -> None:
    """Return the rows above a version, in order and without gaps, whatever other rows are between them."""
    async with opened(factory) as storage:
        for number in range(40):
            strangers = [Audited("a", number), Ticked(number), Deposited("b", number)]
            await storage.store_events([Deposited("a", number), *strangers])
        for after in (0, 1, 20, 39):
            found = await history(storage, "a", after)
            expect_equal(found, [(n + 1, n) for n in range(after, 40)], f"the history above version {after}")
        for after in (40, 41, 1000):
            expect_equal(await history(storage, "a", after), [], f"the history above version {after} of 40")
        for stream in (("account", "nobody"), ("nothing", "a")):
            expect_equal(
                await storage.read_history(*stream), [], f"the history of {stream}, which does not exist"
            )
        await storage.store_event(Deposited("a", 40))
        expect_equal(
            await history(storage, "a", 39), [(40, 39), (41, 40)], "the history after another append"
        )


@case()
async def similar_ids_are_kept_apart(factory: StorageFactory) -> None:
    """Keep streams and snapshots with long or similar ids apart, and return the ids unchanged."""
    async with opened(factory) as storage:
        await append(storage, *(to_account(name, 0, n) for n, name in enumerate(IDS)))
        for n, name in enumerate(IDS):
            await storage.save_snapshot("account", name, 1, str(n).encode())
        await append(storage, *(to_account(name, 1, n) for n, name in enumerate(IDS)))
        for n, name in enumerate(IDS):
            expect_equal(await history(storage, name), [(1, n), (2, n)], f"the history of account/{name:.20}")
            kept = await storage.load_snapshot("account", name)
            expect_equal(kept, str(n).encode(), f"the snapshot of account/{name:.20}")


@case("persistent")
async def aggregates_survive_closing(factory: StorageFactory) -> None:
    """Know histories, versions and snapshots after opening again."""
    async with opened(factory) as storage:
        await append(storage, to_account("a", 0, 0, 1), to_account("b", 0, 2))
        await storage.save_snapshot("account", "a", 2, b"two")
    async with opened(factory) as storage:
        call = append(storage, to_account("b", 1, 8), to_account("a", 1, 9))
        await expect_error(
            ConcurrencyError, call, "an append at a version that has passed, after opening again"
        )
        await append(storage, to_account("b", 1, 3), to_account("a", 2, 4))
        expect_equal(
            await history(storage, "a", 1), [(2, 1), (3, 4)], "the history of account/a above version 1"
        )
        expect_equal(await history(storage, "b"), [(1, 2), (2, 3)], "the history of account/b")
        expect_equal(await storage.load_snapshot("account", "a"), b"two", "the snapshot")


@case("shared")
async def storages_see_each_others_aggregates(factory: StorageFactory) -> None:
    """Check versions against other storages' writes, and read their histories and snapshots."""
    async with opened(factory) as left, opened(factory) as right:
        await append(left, to_account("a", 0, 0), to_account("b", 0, 1))
        await append(right, to_account("b", 1, 2))
        call = append(left, to_account("a", 1, 8), to_account("b", 1, 9))
        await expect_error(ConcurrencyError, call, "an append at a version that the other storage has passed")
        await append(left, to_account("a", 1, 3), to_account("b", 2, 4))
        await left.save_snapshot("account", "a", 2, b"left")
        for one in (left, right):
            expect_equal(
                await history(one, "a"), [(1, 0), (2, 3)], "the history of account/a as each sees it"
            )
            expect_equal(
                await history(one, "b", 1), [(2, 2), (3, 4)], "the history of account/b as each sees it"
            )
            expect_equal(await one.load_snapshot("account", "a"), b"left", "the snapshot as each sees it")


# -- snapshots ----------------------------------------------------------------------------------------------


@case()
async def the_snapshot_saved_last_is_kept(factory: StorageFactory) -> None:
    """Return the bytes saved last for each type and id, whatever their version; None after a removal."""
    async with opened(factory) as storage:
        expect_equal(await storage.load_snapshot("account", "a"), None, "a snapshot that was never saved")
        await storage.save_snapshot("account", "a", 1, None)
        await storage.save_snapshot("audit", "a", 1, b"audit")
        for version, data in ((5, b"five"), (9, b""), (3, bytes(range(256)) * 4096), (3, b"\x00again")):
            await storage.save_snapshot("account", "a", version, data)
            kept = await storage.load_snapshot("account", "a")
            expect_equal(kept, data, f"the snapshot of version {version}")
        await storage.save_snapshot("account", "a", 3, None)
        expect_equal(await storage.load_snapshot("account", "a"), None, "a snapshot that was removed")
        expect_equal(await storage.load_snapshot("audit", "a"), b"audit", "the snapshot of another type")
        expect_equal(await everything(storage), [], "the log: a snapshot is no event")


def account_class(meaning: int = 1) -> type[Any]:
    """Return the aggregate class of an account, in one version of an application."""

    class Account(Aggregate):
        snapshot_version = meaning
        total: int = 0

        def deposit(self, number: int) -> None:
            self.record(Deposited(self.id, number))

        @applies(Deposited)
        def _deposited(self, event: Deposited) -> None:
            self.total += event.number

    return Account


async def total_of(storage: Any, meaning: int = 1) -> tuple[int, int]:
    """Return total and version of account/a, loaded by a repository that uses snapshots."""
    account = await Repository(account_class(meaning), storage, snapshot_every=2).load("a")
    return account.total, account.version


@case()
async def an_aggregate_is_loaded_from_its_snapshot(factory: StorageFactory) -> None:
    """Save a snapshot when one is due, and load from it; ignore one of an older snapshot version."""
    async with opened(factory) as storage:
        accounts = Repository(account_class(), storage, snapshot_every=2)
        for number in range(1, 6):
            async with accounts.edit("a") as account:
                account.deposit(number)
        check(await storage.load_snapshot("account", "a"), "a snapshot is saved after 5 events")
        expect_equal(await total_of(storage), (15, 5), "total and version from snapshot and events")
        expect_equal(
            await total_of(storage, meaning=2),
            (15, 5),
            "total and version of a class with another snapshot version",
        )


@case()
async def an_unusable_snapshot_is_ignored(factory: StorageFactory) -> None:
    """Replay the events if the snapshot is ahead of the log, of another log, or damaged."""
    async with opened(factory) as storage:
        accounts = Repository(account_class(), storage, snapshot_every=2)
        for number in (100, 200, 300):
            async with accounts.edit("b") as account:
                account.deposit(number)
        foreign = await storage.load_snapshot("account", "b")
        check(foreign, "a snapshot is saved after 3 events")
        for version in (1, 2, 3):
            await append(storage, to_account("a", version - 1, version))
            for data in (foreign, foreign[:-1], b"", b"\x00" * 40):
                await storage.save_snapshot("account", "a", 2, data)
                found = await total_of(storage)
                expect_equal(
                    found, (sum(range(version + 1)), version), f"total and version over {data[:8]!r}"
                )
