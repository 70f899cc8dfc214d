"""Rivals on disk: pabal, and blocking ``sqlite3`` that inserts exactly the same rows."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.events import OrderPlaced, counting_handler
from benchmarks.harness import expect_handled
from benchmarks.model import PABAL
from pabal import EventBusFactory
from pabal.domain.envelope import checksum_at, encode_event
from pabal.storage.sqlite.schema import connect

Row = tuple[Any, ...]
Durability = Literal["full", "normal"]
MAX_PAYLOAD = 1 << 20

INSERT = (
    "INSERT INTO events (position, event_id, event_type, schema_version, aggregate_type, aggregate_id, "
    "occurred_at, correlation_id, causation_id, metadata, payload, checksum, stream_version, recorded_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
STREAM_INDEX = "CREATE UNIQUE INDEX events_by_stream ON events (aggregate_type, aggregate_id, stream_version)"
SAVE_WATERMARK = "UPDATE subscriptions SET watermark = ?, frontier = ?, updated_at = ? WHERE name = 'handler'"
ADD_SUBSCRIPTION = (
    "INSERT INTO subscriptions (name, watermark, frontier, created_at, updated_at) "
    "VALUES ('handler', 0, 0, 0, 0)"
)


async def pabal_end_to_end(
    path: Path, events: Sequence[OrderPlaced], *, publishers: int, batch: int, durability: Durability
) -> dict[str, float]:
    """Publish, commit, handle, and save the watermark; with ``batch`` 1, publish events one by one.

    The second figure includes the time to finish background work and close the file.
    """
    bus, storage = EventBusFactory.create_complete_event_system(path, durability=durability)
    handle, count = counting_handler()
    bus.subscribe(OrderPlaced, handle, name="handler")
    await bus.start()

    async def publish_singly(mine: Sequence[OrderPlaced]) -> None:
        for event in mine:
            await bus.publish(event)

    async def publish_batches(mine: Sequence[OrderPlaced]) -> None:
        for at in range(0, len(mine), batch):
            await bus.publish_batch(mine[at : at + batch])

    publish = publish_singly if batch == 1 else publish_batches
    shares = [events[number::publishers] for number in range(publishers)]
    start = time.perf_counter()
    await asyncio.gather(*[publish(share) for share in shares])
    await bus.drain()
    drained = time.perf_counter() - start
    await bus.stop()
    await storage.aclose()
    closed = time.perf_counter() - start
    expect_handled(PABAL, count(), len(events))
    expect_handled(f"{PABAL}, watermark", _saved_watermark(path), len(events))
    return {"events/s": len(events) / drained, "events/s until closed": len(events) / closed}


def rows_of(events: Sequence[OrderPlaced], recorded_at: int) -> list[Row]:
    """Return the rows that pabal would store for these events in an empty log, prepared beforehand."""
    versions: dict[str, int] = {}
    rows: list[Row] = []
    for position, event in enumerate(events, 1):
        record = encode_event(event, MAX_PAYLOAD)
        version = versions[event.order_id] = versions.get(event.order_id, 0) + 1
        rows.append(
            (
                position,
                *record[:10],
                checksum_at(record[10], position, version, recorded_at),
                version,
                recorded_at,
            )
        )
    return rows


def raw_sqlite(
    path: Path, rows: Sequence[Row], *, batch: int, durability: Durability, both_indexes: bool
) -> dict[str, float]:
    """Insert rows with pabal's schema and pragmas, and the watermark in each batch's transaction.

    With ``both_indexes``, (stream, version) is indexed as well, as reading streams requires; pabal builds
    that index after the commits. A batch of one commits twice, for the event and for its completion.
    """
    connection = open_like_pabal(path, durability, both_indexes=both_indexes)
    try:
        start = time.perf_counter()
        if batch == 1:
            _insert_singly(connection, rows)
        else:
            _insert_batches(connection, rows, batch)
        seconds = time.perf_counter() - start
    finally:
        connection.close()
    return {"events/s": len(rows) / seconds}


def open_like_pabal(path: Path, durability: Durability, *, both_indexes: bool) -> sqlite3.Connection:
    """Return a connection with pabal's schema and pragmas, and one subscription whose watermark can move."""
    connection = connect(path, durability=durability)
    if both_indexes:
        connection.execute(STREAM_INDEX)
    connection.execute(ADD_SUBSCRIPTION)
    return connection


def _insert_singly(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    execute = connection.execute  # autocommit: every statement is a transaction
    for row in rows:
        execute(INSERT, row)
        execute(SAVE_WATERMARK, (row[0], row[0], row[13]))


def _insert_batches(connection: sqlite3.Connection, rows: Sequence[Row], batch: int) -> None:
    for at in range(0, len(rows), batch):
        part = rows[at : at + batch]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, part)
        connection.execute(SAVE_WATERMARK, (part[-1][0], part[-1][0], part[-1][13]))
        connection.execute("COMMIT")


def _saved_watermark(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(
            connection.execute("SELECT watermark FROM subscriptions WHERE name = 'handler'").fetchone()[0]
        )
    finally:
        connection.close()
