"""Delete what the log need not keep, never more than every subscription and projection has finished."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from heapq import heappop, heappush
from typing import Protocol, TypeVar

import msgspec

from pabal.errors import UsageError
from pabal.storage.sqlite.places import first_recorded_since
from pabal.storage.sqlite.statements import numbered, statements
from pabal.storage.sqlite.transaction import Transaction

T = TypeVar("T")

Entry = tuple[str, str, int | None]
"""An event's place in the index of streams: aggregate id, aggregate type, version."""

SLICE_SECONDS = 0.0015
"""How long one commit of tidying up may hold the writer before its sync, so that publishers hardly notice."""
PAUSES = 3
"""How much longer than a commit the time between two of them is: it is left to publishers, as is the disk."""
ALONE_AFTER = 1.0
"""Seconds without a new event after which nobody is taken to publish, and no time is left."""
SLICE_FIRST, SLICE_LEAST, SLICE_MOST = 100, 20, 2000
"""Rows deleted in one commit: at first, and the bounds within which that follows the time it takes."""
CHECKPOINT_PAGES = 250
"""Deleting touches pages all over the file: moved there by the thousand, they keep everybody waiting."""
GATHERED = 20_000
"""Entries of the index of streams that are deleted together, in order."""


class Do(Protocol):
    """Run an action in the writer's transaction, committed when it is awaited."""

    def __call__(self, action: Callable[[Transaction], T], /) -> Awaitable[T]:
        """Return what the action returns, once that is committed."""
        ...


class Trimmed(msgspec.Struct, frozen=True):
    """Say what a trim did: how many events went (or would go), and who kept it from deleting more."""

    deleted: int
    held_back_by: tuple[str, ...] = ()
    """Names of subscriptions that have not finished events which are due to go.

    Also ``projection NAME`` for a projection whose tables do not hold them yet, and
    ``projection NAME (rebuild)`` for tables that are being built beside the live ones.
    """


class Vacuumed(msgspec.Struct, frozen=True):
    """Say how many bytes a vacuum gave back to the file system, and how many are left in use."""

    freed_bytes: int
    used_bytes: int


class Bound(msgspec.Struct, frozen=True):
    """Say how far a trim may go, and who holds it back."""

    upto: int
    held_back_by: tuple[str, ...]
    events: int
    """How many events lie up to there."""


def check_limits(max_age: timedelta | None, max_events: int | None, max_bytes: int | None) -> None:
    """Raise UsageError where there is no limit, or one that is below nothing and would spare no event."""
    if max_age is None and max_events is None and max_bytes is None:
        raise UsageError("trim() would delete everything; give max_age, max_events or max_bytes")
    if max_age is not None and max_age < timedelta(0):
        raise UsageError(f"max_age is {max_age}; it cannot be negative")
    for name, limit in (("max_events", max_events), ("max_bytes", max_bytes)):
        if limit is not None and limit < 0:
            raise UsageError(f"{name} is {limit}; it cannot be negative")


def find_bound(
    tx: Transaction, max_age: timedelta | None, max_events: int | None, max_bytes: int | None
) -> Bound:
    """Return the highest position that is to go and may go; any of the limits makes an event go.

    Below it lies nothing that a subscription has not finished, that waits for a retry, that queues behind a
    parked event, or that the tables of a projection do not hold. The newest event always stays, so that
    positions go on from it.
    """
    sql = statements()
    head = tx.execute(sql["head"]).fetchone()[0]
    due = 0
    if max_age is not None:
        since = time.time_ns() // 1000 - max_age // timedelta(microseconds=1)
        first_kept = first_recorded_since(tx, since)
        due = max(due, head if first_kept is None else first_kept - 1)
    if max_events is not None:
        due = max(due, head - max_events)
    if max_bytes is not None:
        due = max(due, _due_by_size(tx, head, max_bytes))
    due = min(due, head - 1)
    held = [name for (name,) in tx.execute(sql["slower_than"], numbered(due))]
    held += [name for name, position in _projections(tx) if position < due]
    upto = _unneeded(tx, due)
    first = tx.execute(sql["first"]).fetchone()[0]
    return Bound(upto, tuple(held), 0 if first is None else max(0, upto - first + 1))


def _projections(tx: Transaction) -> list[tuple[str, int]]:
    """Return every set of projected tables, and the position up to which it is made.

    One whose next event is gone already needs nothing that is left: it holds back nothing.
    """
    sql = statements()
    if tx.execute(sql["has_projections"]).fetchone() is None:
        return []
    return [
        (f"projection {name}" if is_live else f"projection {name} (rebuild)", position)
        for name, is_live, position in tx.execute(sql["projections"])
    ]


def _unneeded(tx: Transaction, upto: int) -> int:
    """Return how far one may delete, at most up to a position, without taking what somebody needs yet."""
    slowest: int | None = tx.execute(statements()["trim_bound"]).fetchone()[0]
    needed: list[int] = [position for _, position in _projections(tx)]
    return min([upto, *needed] if slowest is None else [upto, slowest, *needed])


async def delete_upto(upto: int, do: Do, gone_so_far: Callable[[int], object]) -> int:
    """Delete the oldest events up to a position in small commits; return how many went.

    What most indexes hold of old events lies side by side, and goes with them. In the index of streams it
    scatters: taken out event by event, each entry has a page of the file written anew; in order, many share
    one. So entries are gathered first. Meanwhile they point below the log's first event, where nobody looks,
    and where they stay if the process dies before they went.
    """
    pace = Pace(do)
    deleted = 0
    heap: list[Entry] = []  # a list sorted at once would keep the event loop for tens of milliseconds
    while True:
        gone = await pace.commit(partial(trim_slice, upto=upto, size=pace.size))
        deleted += len(gone)
        gone_so_far(deleted)
        for entry in gone:
            if entry[2] is not None:
                heappush(heap, entry)
        if len(heap) >= GATHERED or not gone:
            while heap:
                entries = [heappop(heap) for _ in range(min(len(heap), pace.size))]
                await pace.commit(partial(trim_streams, entries=entries))
        if not gone:
            return deleted


class Pace:
    """Keep commits short, and leave time between them."""

    def __init__(self, do: Do) -> None:
        self._do = do
        self._head = 0
        self._published_at = 0.0
        self.size = SLICE_FIRST
        """How many rows the next commit should delete."""

    async def commit(self, action: Callable[[Transaction], T]) -> T:
        """Delete ``size`` rows, and leave time to who publishes; return what the action returns."""
        begun = time.monotonic()
        result, seconds, head = await self._do(partial(_timed, action=action))
        # Without the sync: it takes the same however little is deleted, and the fewer of them the better.
        self.size = next_size(self.size, seconds)
        now = time.monotonic()
        if head != self._head:  # in whatever process
            self._head, self._published_at = head, now
        is_alone = now - self._published_at >= ALONE_AFTER
        await asyncio.sleep(0.0 if is_alone else PAUSES * (now - begun))
        return result


def _timed(tx: Transaction, action: Callable[[Transaction], T]) -> tuple[T, float, int]:
    """Return also how long the action took in seconds, and the highest position."""
    begun = time.monotonic()
    tx.checkpoint_from(CHECKPOINT_PAGES)
    result = action(tx)
    return result, time.monotonic() - begun, tx.execute(statements()["head"]).fetchone()[0]


def next_size(size: int, seconds: float) -> int:
    """Return how many rows the next commit should delete, after one of ``size`` took so long."""
    fitting = int(size * SLICE_SECONDS / max(seconds, 1e-6))
    return max(SLICE_LEAST, min(SLICE_MOST, fitting, 2 * size))


def trim_slice(tx: Transaction, upto: int, size: int) -> list[Entry]:
    """Delete the oldest events up to a position, at most ``size`` of them; return their places in streams.

    Who has been reset or asked for a replay since the bound was found keeps what it needs, and so does a
    projection whose rebuild has begun.
    """
    sql = statements()
    last = tx.execute(sql["slice_end"], (_unneeded(tx, upto), size)).fetchone()[0]
    if last is None:
        return []
    tx.index_streams(last)
    for statement in ("trim_types", "trim_correlations", "trim_marks", "trim_recoveries"):
        tx.execute(sql[statement], (last,))
    return tx.execute(sql["trim_events"], (last,)).fetchall()


def trim_streams(tx: Transaction, entries: list[Entry]) -> None:
    """Delete entries of the index of streams.

    The newest of each stream stays, so that its versions go on from there.
    """
    tx.executemany(statements()["trim_stream"], entries)


def used_bytes(tx: Transaction) -> int:
    """Return how much of the file holds something; the rest is room for what comes."""
    pages, free, size = (
        tx.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _due_by_size(tx: Transaction, head: int, max_bytes: int) -> int:
    """Return up to where events must go for the rest to need at most so much room.

    Every event is taken to need the same, indexes and all: a share of what is used, not of what was asked.
    """
    first = tx.execute(statements()["first"]).fetchone()[0]
    used = used_bytes(tx)
    if first is None or used <= max_bytes:
        return 0
    count = head - first + 1
    kept = count * max_bytes // used
    return head - int(kept)


def vacuum_slice(tx: Transaction) -> int:
    """Give free pages at the end of the file back for a few milliseconds; return how many bytes."""
    before, free, size = (
        tx.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    until = time.perf_counter() + SLICE_SECONDS
    while free > 0 and time.perf_counter() < until:
        # Through the sqlite3 module each call moves one page, whatever number it is given.
        tx.execute("PRAGMA incremental_vacuum(1)")
        free -= 1
    return int((before - tx.execute("PRAGMA page_count").fetchone()[0]) * size)
