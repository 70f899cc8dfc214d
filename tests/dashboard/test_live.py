"""Live reports from the server, which stop when no page listens."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import MutableMapping
from contextlib import closing
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from pabal import InMemoryEventBus, InMemoryEventStorage, RetryPolicy, SqliteEventStorage
from pabal.dashboard import create_dashboard
from pabal.dashboard.live import Hub
from pabal.errors import DeadLetterNotFoundError
from pabal.operations import Operations, operations_of
from pabal.ports.operations import DeadLetterGroup, DeadLetterView
from tests.dashboard.support import Shipped, client


async def test_every_listener_gets_reports_and_no_task_runs_without_listeners(bus: InMemoryEventBus) -> None:
    """An open page would show old figures, or a closed one still cost the server time."""
    hub = Hub(operations_of(bus))
    first, second = hub.listen(), hub.listen()
    for stream in (first, second):
        assert (await anext(stream)).startswith(b"retry:")
        begun = await anext(stream)
        assert begun.startswith(b"event: report\ndata: ")
        assert msgspec.json.decode(begun.split(b"data: ")[1])["totals"]["dead_letters"] == 2
    await bus.publish(Shipped("p-9", 1))
    await bus.drain()
    for stream in (first, second):
        async with asyncio.timeout(20):
            while b'"head":6' not in await anext(stream):
                continue
    ticker = next(task for task in asyncio.all_tasks() if task.get_name() == "pabal-dashboard")
    await first.aclose()
    await second.aclose()
    async with asyncio.timeout(20):
        await asyncio.wait([ticker])
    assert ticker.cancelled()


async def test_a_storage_error_is_reported_and_does_not_end_the_stream(bus: InMemoryEventBus) -> None:
    """The page would look healthy forever after the disk has failed."""
    storage = bus.storage
    assert isinstance(storage, SqliteEventStorage)
    hub = Hub(operations_of(storage))
    stream = hub.listen()
    await anext(stream)
    assert (await anext(stream)).startswith(b"event: report")
    await bus.stop()
    await storage.aclose()
    async with asyncio.timeout(20):
        while not (event := await anext(stream)).startswith(b"event: trouble"):
            continue
    assert b"closed" in event
    await stream.aclose()
    storage.open()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each report as soon as the one before was sent."""
    monkeypatch.setattr("pabal.dashboard.live._REPORT_INTERVAL", 0.0)


@pytest.mark.usefixtures("quick")
async def test_a_slow_listener_gets_the_newest_report(bus: InMemoryEventBus) -> None:
    """On a slow connection the figures would be minutes old, and each page fill the server's memory."""
    hub = Hub(operations_of(bus))
    slow, prompt = hub.listen(), hub.listen()
    for stream in (slow, prompt):
        await anext(stream)
        await anext(stream)
    for number in range(5):
        await bus.publish(Shipped(f"q-{number}", 1))
    await bus.drain()
    async with asyncio.timeout(20):
        while b'"head":14' not in await anext(prompt):
            continue
        for _ in range(3):  # as many as the slow page's queue holds, and one more
            await anext(prompt)
        assert b'"head":14' in await anext(slow)
    await slow.aclose()
    await prompt.aclose()


async def test_an_idle_stream_sends_keepalives(
    bus: InMemoryEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would close the connection, and the page say that the server is gone."""
    monkeypatch.setattr("pabal.dashboard.live._KEEPALIVE_INTERVAL", 0.0)
    hub = Hub(operations_of(bus))
    stream = hub.listen()
    await anext(stream)
    await anext(stream)
    assert await anext(stream) == b": still here\n\n"
    await stream.aclose()


async def test_stopping_the_dashboard_leaves_no_task_running(bus: InMemoryEventBus) -> None:
    """A reader of the log would outlive its storage, and end in a traceback."""
    app = create_dashboard(bus)
    async with app.router.lifespan_context(app):
        first = asyncio.Event()
        ended = asyncio.create_task(listen(app, first))
        await first.wait()
        assert "pabal-dashboard" in running()
    assert "pabal-dashboard" not in running()
    ended.cancel()
    await asyncio.wait([ended])


def running() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


async def listen(app: Starlette, first: asyncio.Event) -> None:
    """Request the stream like a browser that never leaves."""

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        if b"event: report" in message.get("body", b""):
            first.set()

    headers = [(b"host", b"127.0.0.1")]
    scope = {"type": "http", "method": "GET", "path": "/api/live", "query_string": b"", "headers": headers}
    await app({**scope, "client": ("127.0.0.1", 1)}, receive, send)


async def test_a_rate_covers_the_last_seconds(bus: InMemoryEventBus) -> None:
    """A page left open all night would show the night's average, or add up old figures."""
    now = [100.0]
    hub = Hub(operations_of(bus), clock=lambda: now[0])
    await hub.report()
    await bus.publish_batch([Shipped(f"q-{number}", 1) for number in range(5)])
    await bus.drain()
    now[0] += 5
    rates = (await hub.report())["rates"]
    assert (rates["published"], rates["handled"]) == (2.0, 1.0)
    now[0] += 8  # the first report is too old now, and nothing has happened since the second
    assert (await hub.report())["rates"]["published"] == 0.0


async def test_event_types_are_cached_for_half_a_minute(
    bus: InMemoryEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each letter typed into the filter would read the whole index of types."""
    now, calls = [100.0], [0]
    read = Operations.types

    async def types(operations: Operations) -> list[str]:
        calls[0] += 1
        return await read(operations)

    monkeypatch.setattr(Operations, "types", types)
    hub = Hub(operations_of(bus), clock=lambda: now[0])
    for _ in range(3):
        assert await hub.types() == ["dashboard.shipped", "dashboard.weighed"]
    assert calls == [1]
    now[0] += 31
    await hub.types()
    assert calls == [2]


async def test_slow_counts_of_dead_letters_are_repeated_less_often(
    bus: InMemoryEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page left open would have a hundred thousand on a server read without end, and by the application."""
    now, counted = [100.0], [0]
    count = Operations.dead_letter_groups

    async def groups(operations: Operations) -> list[DeadLetterGroup]:
        counted[0] += 1
        now[0] += 3
        return await count(operations)

    monkeypatch.setattr(Operations, "dead_letter_groups", groups)
    hub = Hub(operations_of(bus), clock=lambda: now[0])
    for _ in range(30):
        await hub.report()
        now[0] += 1
    assert counted == [1]
    hub.invalidate()
    await hub.report()
    assert counted == [2]
    now[0] += 61
    await hub.report()
    assert counted == [3]


async def test_a_dead_letter_that_disappears_does_not_break_the_report(
    bus: InMemoryEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who retries a group would see the whole page fail for a moment."""

    async def gone(operations: Operations, number: int) -> DeadLetterView:
        raise DeadLetterNotFoundError(dead_letter_id=number)

    monkeypatch.setattr(Operations, "dead_letter", gone)
    async with client(bus) as http:
        (group,) = (await http.get("/api/dead-letters/groups")).json()["groups"]
    assert (group["count"], group["message"], group["event_types"]) == (2, "", [])


async def test_a_damaged_dead_letter_does_not_break_the_report(bus: InMemoryEventBus) -> None:
    """One damaged row would take the health of every subscription off the page, until someone finds it."""
    storage = bus.storage
    assert isinstance(storage, SqliteEventStorage)
    with closing(sqlite3.connect(storage.path)) as connection, connection:
        connection.execute("UPDATE dead_letters SET payload = x'7b7d' WHERE id = 2")
    async with client(bus) as http:
        report = await http.get("/api/report")
        (group,) = (await http.get("/api/dead-letters/groups")).json()["groups"]
        rows = (await http.get("/api/events", params={"aggregate": "p-3"})).json()["items"]
        shown = await http.get(f"/api/events/{rows[0]['event_id']}")
    assert report.json()["totals"]["dead_letters"] == 2
    assert "dead letter 2, of the event at position 3, is damaged" in group["message"]
    assert "데드 레터 2" in group["message_ko"]
    assert shown.json()["graph"]["nodes"][0]["parked"] is True


async def test_lists_show_the_beginning_and_the_end_of_a_long_error_message() -> None:
    """One error with a page of text would push everything else off the screen, once a second."""

    async def refuse(event: Shipped) -> None:
        raise ValueError("begin " + "x" * 5000 + " end")

    once = RetryPolicy(max_attempts=1)
    async with InMemoryEventBus(event_storage=InMemoryEventStorage()) as bus:
        bus.subscribe(Shipped, refuse, name="parks", retry=once)
        bus.subscribe(Shipped, refuse, name="halts", retry=once, on_exhausted="stop")
        await bus.publish(Shipped("p-1", 1))
        await bus.drain()
        async with client(bus) as http:
            report = (await http.get("/api/report")).json()
            (group,) = (await http.get("/api/dead-letters/groups")).json()["groups"]
            (row,) = (await http.get("/api/dead-letters")).json()["items"]
            letter = (await http.get("/api/dead-letters/1")).json()["letter"]
    halted, parked = report["troubles"]
    lists = (group["message"], row["message"], row["message_ko"], parked["detail"], halted["detail_ko"])
    assert [len(text) < 500 for text in (*lists, halted["text"])] == [True] * 6
    assert [bool(re.search(r"begin x+ … x+ end", text)) for text in lists[:4]] == [True] * 4
    assert halted["detail"].endswith("fix the cause, then restart the bus or call bus.resume()")
    assert len(letter["attempts"][0]["message"]) > 5000


async def test_a_file_shows_the_figures_that_its_bus_stored(bus: InMemoryEventBus) -> None:
    """With a file, the page would know neither rates nor the number of running handlers."""
    await bus.stop()  # takes a sample
    async with client(bus.storage) as http:
        (stopped,) = (await http.get("/api/report")).json()["subscriptions"]
    assert (stopped["p50"], stopped["in_flight"]) == (None, None)
    await bus.start()
    async with client(bus.storage) as http:
        report = (await http.get("/api/report")).json()
    (row,) = report["subscriptions"]
    assert 0 < row["p50"] <= row["p99"]
    assert row["in_flight"] == 0
    assert report["latency"] == {"p50": row["p50"], "p99": row["p99"], "of": "scale"}
    assert row["rate"] == report["rates"]["handled"] > 0
