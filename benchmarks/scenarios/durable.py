"""How many events per second are published, committed, handled, and their watermark saved?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from benchmarks.events import OrderPlaced, make_events
from benchmarks.harness import Settings, fresh_folder, installed, interleave, run
from benchmarks.model import PABAL, Entry, Metrics, Outcome, Table
from benchmarks.rivals.durable import Durability, Row, pabal_end_to_end, raw_sqlite, rows_of
from benchmarks.rivals.queues import QUEUES, Queue

NAME = "durable"
BATCH_NAME = "durable-batch"
METRIC = "events/s"
CLOSED = "events/s until closed"
RAW = "raw sqlite3"
RAW_ONE_INDEX = "raw sqlite3, id index only"
MODES: tuple[Durability, ...] = ("full", "normal")


def case_name(publishers: int, durability: str, batch: int = 1) -> str:
    """Return the name of a case in tables and goals."""
    how = f" × publish_batch({batch:,})" if batch > 1 else ""
    return f"{durability}, {publishers:,} publisher{'s' if publishers > 1 else ''}{how}"


def _pabal(
    settings: Settings, events: Sequence[OrderPlaced], publishers: int, batch: int, durability: Durability
) -> Callable[[], Metrics]:
    def measure() -> Metrics:
        with fresh_folder(settings) as folder:
            return run(
                pabal_end_to_end(
                    folder / "log.db", events, publishers=publishers, batch=batch, durability=durability
                )
            )

    return measure


def _raw(
    settings: Settings, rows: Sequence[Row], batch: int, durability: Durability, both_indexes: bool
) -> Callable[[], Metrics]:
    def measure() -> Metrics:
        with fresh_folder(settings) as folder:
            return raw_sqlite(
                folder / "log.db", rows, batch=batch, durability=durability, both_indexes=both_indexes
            )

    return measure


def _queue(settings: Settings, queue: Queue, events: int, durability: Durability) -> Callable[[], Metrics]:
    def measure() -> Metrics:
        with fresh_folder(settings) as folder:
            return {METRIC: events / queue.measure(folder, events, durability)}

    return measure


def _case(
    settings: Settings,
    events: Sequence[OrderPlaced],
    rows: Sequence[Row],
    *,
    publishers: int,
    batch: int,
    durability: Durability,
) -> list[Entry]:
    """Return the entries of pabal and the two raw floors for one case."""
    case = case_name(publishers, durability, batch)
    raw_batch = batch if batch > 1 else publishers
    metrics = (METRIC, CLOSED)
    mine = _pabal(settings, events, publishers, batch, durability)
    version = installed("pabal") or ""
    entries = [Entry(case, PABAL, metrics, mine, version, durability, len(events))]
    note = f"batches of {raw_batch:,}" if raw_batch > 1 else "a commit per event and per completion"
    for rival, both in ((RAW, True), (RAW_ONE_INDEX, False)):
        floor = _raw(settings, rows, raw_batch, durability, both)
        entries.append(Entry(case, rival, (METRIC,), floor, "", durability, len(rows), note))
    return [entry for entry in entries if settings.wants(entry.rival)]


def _queues(settings: Settings, case: str, durability: Durability) -> list[Entry]:
    entries: list[Entry] = []
    for queue in QUEUES:
        version = installed(queue.distribution)
        events = settings.size(queue.events, queue.events // 5)
        missing = "" if version else "not installed"
        if durability == "normal" and queue.name in ("eventsourcing", "huey"):
            missing = "has no such setting"
        measure = _queue(settings, queue, events, durability)
        if settings.wants(queue.name):
            entries.append(
                Entry(
                    case,
                    queue.name,
                    (METRIC,),
                    measure,
                    version or "",
                    durability,
                    events,
                    queue.note,
                    missing,
                )
            )
    return entries


def measure(settings: Settings) -> Outcome:
    """Measure 1 to 1,000 concurrent publishers in both durability modes."""
    sizes = {
        1: settings.size(2_000, 400),
        10: settings.size(10_000, 2_000),
        100: settings.size(40_000, 6_000),
        1_000: settings.size(100_000, 12_000),
    }
    events = make_events(max(sizes.values()), 1_000)
    rows = rows_of(events, time.time_ns() // 1000)
    entries: list[Entry] = []
    for durability in MODES:
        for publishers, count in sizes.items():
            entries += _case(
                settings, events[:count], rows[:count], publishers=publishers, batch=1, durability=durability
            )
            if publishers == 100:
                entries += _queues(settings, case_name(publishers, durability), durability)
    return Outcome(
        scenario=NAME,
        title="On disk, end to end",
        text=(
            "Each publisher awaits one publish after the other; the clock stops when every event is "
            "committed and handled and the subscription's watermark is saved (`bus.drain()`), which is "
            "checked in the file afterwards. The raw floors insert exactly the same rows, prepared "
            "beforehand, with blocking calls into the same schema under the same pragmas, in batches of as "
            "many rows as there are publishers, with the watermark in the same transaction; with one "
            "publisher they commit the event and its completion separately, as pabal does. Queues and "
            "eventsourcing commit per event and run one after another. 1,000 aggregates."
        ),
        tables=(Table("Events per second, on disk, end to end", (METRIC,), RAW, NAME),),
        series=tuple(interleave(entries, settings.runs)),
    )


def measure_batches(settings: Settings) -> Outcome:
    """Measure ``publish_batch(1000)`` from four publishers."""
    count = settings.size(200_000, 20_000)
    events = make_events(count, 1_000)
    rows = rows_of(events, time.time_ns() // 1000)
    entries: list[Entry] = []
    for durability in MODES:
        entries += _case(settings, events, rows, publishers=4, batch=1_000, durability=durability)
    return Outcome(
        scenario=BATCH_NAME,
        title="On disk, end to end: publish_batch",
        text=(
            f"{count:,} events by `publish_batch(1000)` from four publishers, beside raw inserts in batches "
            "of 1,000. pabal builds the (stream, version) index behind the commits, 20,000 rows at a time; "
            "“until closed” includes the wait for the rest of it."
        ),
        tables=(Table("Events per second, on disk, publish_batch(1000)", (METRIC, CLOSED), RAW, BATCH_NAME),),
        series=tuple(interleave(entries, settings.runs)),
    )
