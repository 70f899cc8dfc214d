"""Trim and vacuum: delete old events, but only those that all subscriptions and projections have finished."""

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
"""An event's key in the index of streams: aggregate id, aggregate type, version."""

SLICE_SECONDS = 0.0015
"""Target time of one commit of trim or vacuum, without its sync: short, so that publishers hardly notice."""
PAUSES = 3
"""Pause between two commits, in multiples of a commit's time; it leaves writer and disk to publishers."""
ALONE_AFTER = 1.0
"""Seconds without a new event after which we assume that nobody publishes, and do not pause."""
SLICE_FIRST, SLICE_LEAST, SLICE_MOST = 100, 20, 2000
"""Rows deleted per commit: at first, at least and at most; the number adapts to the time a commit takes."""
CHECKPOINT_PAGES = 250
"""Pages per checkpoint. Deleting changes pages all over the file, and larger checkpoints block publishers."""
GATHERED = 20_000
"""Entries of the index of streams to collect before deleting them together, in order."""


class RunInTransaction(Protocol):
    """Type of the function that runs an action in a write transaction and commits it."""

    def __call__(self, action: Callable[[Transaction], T], /) -> Awaitable[T]:
        """Return the action's result once it is committed."""
        ...


class Trimmed(msgspec.Struct, frozen=True):
    """The result of a trim: how many events it deleted (or would delete), and what held it back."""

    deleted: int
    held_back_by: tuple[str, ...] = ()
    """Names of subscriptions that have not finished all events that were due for deletion.

    Also ``projection NAME`` for a projection whose tables lack such events, and ``projection NAME (rebuild)``
    for tables being built beside the live ones.
    """


class Vacuumed(msgspec.Struct, frozen=True):
    """The result of a vacuum: bytes returned to the file system, and bytes still in use."""

    freed_bytes: int
    used_bytes: int


class Bound(msgspec.Struct, frozen=True):
    """How far a trim may delete, and what holds it back."""

    upto: int
    held_back_by: tuple[str, ...]
    events: int
    """Number of events in the log up to ``upto``."""


def check_limits(max_age: timedelta | None, max_events: int | None, max_bytes: int | None) -> None:
    """Raise UsageError if no limit is given, or if one is negative: no event would be kept."""
    if max_age is None and max_events is None and max_bytes is None:
        raise UsageError("trim() would delete everything; give max_age, max_events or max_bytes")
    if max_age is not None and not isinstance(max_age, timedelta):
        raise UsageError(f"max_age is {max_age!r}; it must be a timedelta, such as timedelta(days=30)")
    if max_age is not None and max_age < timedelta(0):
        raise UsageError(f"max_age is {max_age}; it cannot be negative")
    for name, limit in (("max_events", max_events), ("max_bytes", max_bytes)):
        if limit is not None and limit < 0:
            raise UsageError(f"{name} is {limit}; it cannot be negative")


def find_bound(
    tx: Transaction, max_age: timedelta | None, max_events: int | None, max_bytes: int | None
) -> Bound:
    """Return the position up to which every event exceeds one of the limits and is no longer needed.

    Up to there, every subscription has finished all events, none waits for a retry or queues behind a parked
    event, and the tables of all projections contain them. The newest event always stays, because the next
    position is computed from it.
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
    """Return each projection's set of tables and the position up to which it is built.

    Sets whose next event is deleted already are left out: they can no longer be completed from the log.
    """
    sql = statements()
    if tx.execute(sql["has_projections"]).fetchone() is None:
        return []
    return [
        (f"projection {name}" if is_live else f"projection {name} (rebuild)", position)
        for name, is_live, position in tx.execute(sql["projections"])
    ]


def _unneeded(tx: Transaction, upto: int) -> int:
    """Return the highest position, at most ``upto``, that no subscription or projection still needs."""
    slowest: int | None = tx.execute(statements()["trim_bound"]).fetchone()[0]
    needed: list[int] = [position for _, position in _projections(tx)]
    return min([upto, *needed] if slowest is None else [upto, slowest, *needed])


async def delete_upto(upto: int, run: RunInTransaction, on_deleted: Callable[[int], object]) -> int:
    """Delete the oldest events up to a position in small commits; return how many were deleted.

    In most indexes, the entries of old events are adjacent and are deleted with the events. In the index of
    streams they are scattered: deleted event by event, each entry would rewrite a page; in order, many share
    a page. So they are collected first and deleted later, sorted. Until then they point below the log's first
    event, where nothing reads them; if the process dies before deleting them, they stay there.
    """
    pace = Pace(run)
    deleted = 0
    heap: list[Entry] = []  # sorting a list in one go would block the event loop for tens of milliseconds
    while True:
        gone = await pace.commit(partial(trim_slice, upto=upto, size=pace.size))
        deleted += len(gone)
        on_deleted(deleted)
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
    """Run commits of adapted size, with pauses for publishers between them."""

    def __init__(self, run: RunInTransaction) -> None:
        self._run = run
        self._head = 0
        self._published_at = 0.0
        self.size = SLICE_FIRST
        """Number of rows that the next commit should delete."""

    async def commit(self, action: Callable[[Transaction], T]) -> T:
        """Run and commit the action, which deletes ``size`` rows; then pause. Return the action's result."""
        begun = time.monotonic()
        result, seconds, head = await self._run(partial(_timed, action=action))
        # `seconds` excludes the sync, which takes as long for few rows as for many: fewer commits are better.
        self.size = next_size(self.size, seconds)
        now = time.monotonic()
        if head != self._head:  # some process has published
            self._head, self._published_at = head, now
        is_alone = now - self._published_at >= ALONE_AFTER
        await asyncio.sleep(0.0 if is_alone else PAUSES * (now - begun))
        return result


def _timed(tx: Transaction, action: Callable[[Transaction], T]) -> tuple[T, float, int]:
    """Run an action; return its result, its duration in seconds, and the log's head."""
    begun = time.monotonic()
    tx.checkpoint_from(CHECKPOINT_PAGES)
    result = action(tx)
    return result, time.monotonic() - begun, tx.execute(statements()["head"]).fetchone()[0]


def next_size(size: int, seconds: float) -> int:
    """Return how many rows the next commit should delete, given the last one's size and duration."""
    fitting = int(size * SLICE_SECONDS / max(seconds, 1e-6))
    return max(SLICE_LEAST, min(SLICE_MOST, fitting, 2 * size))


def trim_slice(tx: Transaction, upto: int, size: int) -> list[Entry]:
    """Delete the oldest events up to a position, at most ``size`` of them; return their stream entries.

    The bound is computed again, because a subscription may have been reset or asked for a replay meanwhile,
    or a projection's rebuild may have begun.
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

    The newest entry of each stream stays, because the stream's next version is computed from it.
    """
    tx.executemany(statements()["trim_stream"], entries)


def used_bytes(tx: Transaction) -> int:
    """Return how many bytes of the file are in use; the rest is free space for new events."""
    pages, free, size = (
        tx.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _due_by_size(tx: Transaction, head: int, max_bytes: int) -> int:
    """Return the position up to which events must be deleted to leave at most ``max_bytes`` in use.

    Assumes that all events take the same space, indexes included: the used bytes divided by their number.
    """
    first = tx.execute(statements()["first"]).fetchone()[0]
    used = used_bytes(tx)
    if first is None or used <= max_bytes:
        return 0
    count = head - first + 1
    kept = count * max_bytes // used
    return head - int(kept)


def vacuum_slice(tx: Transaction) -> int:
    """Return free pages to the file system for up to ``SLICE_SECONDS``; return how many bytes."""
    before, free, size = (
        tx.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    until = time.perf_counter() + SLICE_SECONDS
    while free > 0 and time.perf_counter() < until:
        # Called through the sqlite3 module, this frees one page per call, whatever number it is given.
        tx.execute("PRAGMA incremental_vacuum(1)")
        free -= 1
    return int((before - tx.execute("PRAGMA page_count").fetchone()[0]) * size)
