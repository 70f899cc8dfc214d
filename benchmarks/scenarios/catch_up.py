"""How fast does a subscription that starts at the beginning read the log?"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.events import OrderPlaced, counting_handler
from benchmarks.harness import Settings, expect_handled, fresh_folder, installed, interleave, run
from benchmarks.logs import fill
from benchmarks.model import PABAL, Entry, Metrics, Outcome, Table
from pabal import EventBusFactory
from pabal.domain.envelope import StoredRecord, decode_event, verify

NAME = "catch-up"
CASE = "from the beginning"
METRIC = "events/s"
BATCHED = "pabal, batch=500"
RAW = "raw select + decode"
SELECT = (
    "SELECT position, event_id, event_type, schema_version, aggregate_type, aggregate_id, occurred_at,"
    " correlation_id, causation_id, metadata, payload, checksum, stream_version, recorded_at"
    " FROM events ORDER BY position"
)
_names = itertools.count()


class Payload(msgspec.Struct):
    """The six fields, typed as in the event."""

    order_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    sequence: int


def raw_decode(path: Path, events: int) -> Metrics:
    """Select every column, and decode the payload into a typed struct: the minimum for any reader."""
    decode = msgspec.json.Decoder(Payload).decode
    return _raw(path, events, lambda row: decode(row[10]))


def raw_event(path: Path, events: int) -> Metrics:
    """Select every column, verify the checksum, and build the event with its header, as pabal does."""

    def decode(row: tuple[Any, ...]) -> object:
        record = StoredRecord(*row)
        verify(record, "")
        return decode_event(record)

    return _raw(path, events, decode)


def _raw(path: Path, events: int, decode: Callable[[tuple[Any, ...]], object]) -> Metrics:
    connection = sqlite3.connect(path)
    try:
        seen = 0
        start = time.perf_counter()
        cursor = connection.execute(SELECT)
        while rows := cursor.fetchmany(1_000):
            for row in rows:
                decode(row)
            seen += len(rows)
        seconds = time.perf_counter() - start
    finally:
        connection.close()
    expect_handled("raw sqlite3", seen, events)
    return {METRIC: events / seconds}


async def pabal_catch_up(path: Path, events: int, batch: int | None) -> Metrics:
    """Start a bus with a new subscription from the beginning, and time it until all events are handled."""
    bus, storage = EventBusFactory.create_complete_event_system(path)
    seen = 0

    async def handle_batch(batch: list[OrderPlaced]) -> None:
        nonlocal seen
        seen += len(batch)

    handle, count = counting_handler()
    handler: Any = handle if batch is None else handle_batch
    bus.subscribe(
        OrderPlaced,
        handler,
        name=f"reader-{next(_names)}",
        start="beginning",
        batch=batch,
    )
    start = time.perf_counter()
    await bus.start()
    await bus.drain()
    seconds = time.perf_counter() - start
    await bus.stop()
    await storage.aclose()
    expect_handled(PABAL, count() + seen, events)
    return {METRIC: events / seconds}


def measure(settings: Settings) -> Outcome:
    """Measure reading one log from its beginning."""
    events = settings.size(300_000, 30_000)
    with fresh_folder(settings) as folder:
        path = folder / "log.db"
        asyncio.run(fill(path, events, keys=1_000))
        version = installed("pabal") or ""
        entries = [
            Entry(
                CASE,
                BATCHED,
                (METRIC,),
                lambda: run(pabal_catch_up(path, events, 500)),
                version,
                "full",
                events,
            ),
            Entry(
                CASE,
                "pabal, one by one",
                (METRIC,),
                lambda: run(pabal_catch_up(path, events, None)),
                version,
                "full",
                events,
            ),
            Entry(
                CASE,
                RAW,
                (METRIC,),
                lambda: raw_decode(path, events),
                "",
                "reading",
                events,
                "payload into a struct",
            ),
            Entry(
                CASE,
                "raw select + pabal's decode",
                (METRIC,),
                lambda: raw_event(path, events),
                "",
                "reading",
                events,
                "checksum, header, payload",
            ),
        ]
        series = interleave([entry for entry in entries if settings.wants(entry.rival)], settings.runs)
    return Outcome(
        scenario=NAME,
        title="On disk: catching up",
        text=(
            f'A new subscription with `start="beginning"` reads a log of {events:,} events; the clock runs '
            "from `bus.start()` until the last event is handled and the watermark saved. The floors read "
            "every column of the same file in one go, without delivering anything."
        ),
        tables=(Table("Events per second, catching up from the log", (METRIC,), RAW, NAME),),
        series=tuple(series),
    )
