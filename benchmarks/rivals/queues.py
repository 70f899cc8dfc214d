"""Durable queues and an event-sourcing library: publish, commit, handle, commit the completion.

All of them commit per event, so they run sequentially in one thread: more publishers would only wait for the
same lock.
"""

from __future__ import annotations

import importlib
import sqlite3
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks.events import counting_function, fields_of
from benchmarks.harness import expect_handled
from benchmarks.rivals.durable import Durability

PAYLOAD = msgspec.json.encode(fields_of(0, 1_000)).decode()
"""The six fields as text, the item put into a queue."""


class Queue(NamedTuple):
    """A durable rival, and a note on its guarantees."""

    name: str
    distribution: str
    measure: Callable[[Path, int, Durability], float]
    """Takes the folder, the number of events and the durability; returns seconds."""
    events: int = 1_000
    note: str = ""


class Sourcing(NamedTuple):
    """The classes of an event-sourced application, which the library requires to be defined only once."""

    order: Any
    shop: Any
    follower: Any
    system: Any


@cache
def _sourcing() -> Sourcing:
    application = importlib.import_module("eventsourcing.application")
    domain = importlib.import_module("eventsourcing.domain")
    system = importlib.import_module("eventsourcing.system")

    # The library uses this function's name.
    def __init__(  # noqa: N807
        self: Any, order_id: str, symbol: str, side: str, quantity: str, price: str, sequence: int
    ) -> None:
        self.order_id = order_id

    def policy(self: Any, domain_event: Any, processing_event: Any) -> None:
        self.handle(domain_event)

    here = {"__module__": __name__}
    placed = domain.event("Placed")(__init__)
    return Sourcing(
        order=type("Order", (domain.Aggregate,), {"__init__": placed, **here}),
        shop=type("Shop", (application.Application,), here),
        follower=type("Follower", (system.ProcessApplication,), {"policy": policy, **here}),
        system=system,
    )


def eventsourcing_app(folder: Path, events: int, durability: Durability) -> float:
    """Save aggregates that a process application follows; its tracking position is the watermark."""
    sourcing = _sourcing()
    handle, count = counting_function()
    environment = {
        "PERSISTENCE_MODULE": "eventsourcing.sqlite",
        "SHOP_SQLITE_DBNAME": str(folder / "shop.db"),
        "FOLLOWER_SQLITE_DBNAME": str(folder / "follower.db"),
    }
    system = sourcing.system.System([[sourcing.shop, sourcing.follower]])
    runner = sourcing.system.SingleThreadedRunner(system, env=environment)
    runner.start()
    runner.get(sourcing.follower).handle = handle
    app = runner.get(sourcing.shop)
    made = [
        sourcing.order(*[str(field) for field in fields_of(number, 1_000)[:5]], number)
        for number in range(events)
    ]
    start = time.perf_counter()
    for aggregate in made:
        app.save(aggregate)
    seconds = time.perf_counter() - start
    runner.stop()
    expect_handled("eventsourcing", count(), events)
    return seconds


def persist_queue(folder: Path, events: int, durability: Durability) -> float:
    library = importlib.import_module("persistqueue")
    queue = library.SQLiteAckQueue(str(folder), auto_commit=True)
    _set_synchronous(queue._conn, durability)
    handle, count = counting_function()
    start = time.perf_counter()
    for _ in range(events):
        queue.put(PAYLOAD)
        item = queue.get()
        handle(item)
        queue.ack(item)
    seconds = time.perf_counter() - start
    queue.close()
    expect_handled("persist-queue", count(), events)
    return seconds


def litequeue(folder: Path, events: int, durability: Durability) -> float:
    library = importlib.import_module("litequeue")
    queue = library.LiteQueue(folder / "queue.db")
    _set_synchronous(queue.conn, durability)
    handle, count = counting_function()
    start = time.perf_counter()
    for _ in range(events):
        queue.put(PAYLOAD)
        message = queue.pop()
        handle(message.data)
        queue.done(message.message_id)
    seconds = time.perf_counter() - start
    queue.conn.close()
    expect_handled("litequeue", count(), events)
    return seconds


def huey(folder: Path, events: int, durability: Durability) -> float:
    library = importlib.import_module("huey")
    app = library.SqliteHuey("benchmark", filename=str(folder / "huey.db"), fsync=True, results=False)
    handle, count = counting_function()
    task = app.task()(handle)
    start = time.perf_counter()
    for _ in range(events):
        task(PAYLOAD)
        app.execute(app.dequeue())
    seconds = time.perf_counter() - start
    app.storage.close()
    expect_handled("huey", count(), events)
    return seconds


def _set_synchronous(connection: sqlite3.Connection, durability: Durability) -> None:
    connection.execute(f"PRAGMA synchronous = {durability.upper()}")


QUEUES = (
    Queue("eventsourcing", "eventsourcing", eventsourcing_app, 500, "an application and a follower"),
    Queue("persist-queue", "persist-queue", persist_queue, 500, "SQLiteAckQueue"),
    Queue("huey", "huey", huey, 500, "SqliteHuey(fsync=True); removed from the queue before it is handled"),
    Queue("litequeue", "litequeue", litequeue, 500, "its own setting is NORMAL"),
)
