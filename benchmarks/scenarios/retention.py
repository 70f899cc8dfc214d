"""How long do publishers wait while a million events are deleted?"""

from __future__ import annotations

import asyncio
import shutil
import time
from functools import partial
from pathlib import Path

from benchmarks.events import OrderPlaced, counting_handler, make_events
from benchmarks.harness import Settings, expect_handled, fresh_folder, installed, interleave, run
from benchmarks.logs import fill
from benchmarks.model import Entry, Metrics, Outcome, Table, percentile
from pabal import EventBusFactory, SqliteEventStorage

NAME = "retention"
CASE = "on disk, full, 100 single publishes a second"
ALONE = "nothing is deleted"
TRIMMING = "while the log is trimmed"
P99, P50, DELETED = "p99 ms", "p50 ms", "events deleted/s"
_PER_SECOND = 100
_RUNS = 3


async def waits(path: Path, events: int, published: int, *, trim: bool) -> Metrics:
    """Publish at a fixed rate, ``published`` events or more, until the trim is over; return the latencies."""
    bus, storage = EventBusFactory.create_complete_event_system(path)
    handle, handled = counting_handler()
    bus.subscribe(OrderPlaced, handle, name="handler")
    found: list[float] = []
    deleted_per_second = 0.0
    async with bus:
        # Enough for a thousand seconds of trimming, created before the clock starts.
        fresh = iter(make_events(published + 1_000 * _PER_SECOND, 1_000, first=events))
        trimming = asyncio.create_task(_trim(storage, events)) if trim else None
        start = time.perf_counter()
        while len(found) < published or (trimming is not None and not trimming.done()):
            due = start + len(found) / _PER_SECOND
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await bus.publish(next(fresh))
            found.append((time.perf_counter() - due) * 1000)
        if trimming is not None:
            deleted_per_second = await trimming
    await storage.aclose()
    expect_handled("the handler", handled(), len(found))
    found.sort()
    return {P99: percentile(found, 0.99), P50: percentile(found, 0.5), DELETED: deleted_per_second}


async def _trim(storage: SqliteEventStorage, events: int) -> float:
    start = time.perf_counter()
    trimmed = await storage.trim(max_events=1)
    # The newest event stays: the log's last one, or one that was published meanwhile.
    expect_handled("trim", min(trimmed.deleted, events - 1), events - 1)
    return trimmed.deleted / (time.perf_counter() - start)


def measure(settings: Settings) -> Outcome:
    """Measure publishing to a log that stays, and to a copy that is trimmed meanwhile."""
    events = settings.size(1_000_000, 50_000)
    published = settings.size(2_000, 200)
    with fresh_folder(settings) as folder:
        original = folder / "original.db"
        asyncio.run(fill(original, events, keys=1_000))

        def publishers(*, trim: bool) -> Metrics:
            path = folder / "log.db"
            shutil.copyfile(original, path)
            try:
                return run(waits(path, events, published, trim=trim))
            finally:
                path.unlink()

        version = installed("pabal") or ""
        entries = [
            Entry(CASE, ALONE, (P99, P50), partial(publishers, trim=False), version, "full", events),
            Entry(
                CASE, TRIMMING, (P99, P50, DELETED), partial(publishers, trim=True), version, "full", events
            ),
        ]
        wanted = [one for one in entries if settings.wants(one.rival)]
        series = interleave(wanted, min(_RUNS, settings.runs), warm_up=False)
    return Outcome(
        scenario=NAME,
        title="On disk: publishing while old events are deleted",
        text=(
            f"One publisher publishes {_PER_SECOND} events a second, each due at its time whatever happened "
            f"to the one before (open loop), and waits until it is synced: on a log of {events:,} "
            f"events, and on a copy of it while `trim` deletes them. Milliseconds from when an event "
            f"was due until `publish` returned; {min(_RUNS, settings.runs)} runs of at least {published:,} "
            "events each."
        ),
        tables=(
            Table("Milliseconds a publisher waits", (P99, P50), ALONE, NAME, lower_is_better=True),
            Table("Events deleted per second", (DELETED,), "", ""),
        ),
        series=tuple(series),
    )
