"""A group's state on the server: how it is shown from outside, and restored after the server lost it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pabal.brokers.redis import pages
from pabal.brokers.redis.doctor import examine_server
from pabal.brokers.redis.extent import extent_of
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.pages import Pages
from pabal.brokers.redis.reports import GroupRestored
from pabal.delivery.retry import RetryPolicy
from pabal.factory import open_operations
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.server import Server
from tests.brokers.support import group_with_dead_letters, make_bus, url_of

LATER = RetryPolicy(max_attempts=5, base_delay=3600.0, max_delay=3600.0, jitter=0.0)


async def test_the_doctor_reports_dead_letters_and_healthy_groups(
    shared_server: Server, namespace: str
) -> None:
    """The doctor would call a server full of dead letters healthy, or warn about a healthy group."""
    async with group_with_dead_letters(shared_server, namespace, 6):
        findings = await examine_server(shared_server.url, namespace)
    found = {finding.text: finding.level for finding in findings}
    assert found["group 'g' has 3 dead letters"] == "warning"
    assert found["group 'g': 0 processes, 0 positions behind"] == "ok"


async def test_a_waiting_event_is_shown_with_its_delivery_state(
    shared_server: Server, namespace: str
) -> None:
    """An operator would look for an error although the event only waits to be handled."""

    async def handle(event: Moved) -> None:
        raise ConnectionError("not now") if event.key == "a" else ValueError("never")

    bus = make_bus(shared_server, namespace, lease=10.0)
    retry = RetryPolicy(max_attempts=2, base_delay=3600.0, max_delay=3600.0, jitter=0.0, never=(ValueError,))
    bus.subscribe(Moved, handle, name="sub", retry=retry, on_exhausted="park_key")
    waiting, first, second = Moved("a", 1), Moved("b", 2), Moved("b", 3)
    async with bus:
        await bus.publish_batch([waiting, first, second])
        await bus.drain(timeout=30, retries=False)
    async with open_operations(url_of(shared_server, namespace)) as operations:
        states = {
            event.number: (await operations.event(event.event_id)).deliveries[0]
            for event in (waiting, first, second)
        }
    assert {number: shown.state for number, shown in states.items()} == {
        1: "retrying",
        2: "parked",
        3: "queued",
    }
    assert states[1].attempts == 1
    assert [failure.error_type for failure in states[1].failures] == ["ConnectionError"]


async def test_retries_are_restored_after_a_flush(own_server: Server, namespace: str) -> None:
    """Promise 43. An event that kills its process would get all of its attempts again each time."""
    failed, attempts = asyncio.Event(), []

    async def handle(event: Moved, context: Any) -> None:
        attempts.append(context.attempt)
        if len(attempts) == 1:
            failed.set()
            raise ConnectionError("not now")

    reports: list[Any] = []
    bus = make_bus(own_server, namespace, partitions=1)
    bus.subscribe(Moved, handle, name="sub", retry=LATER)
    bus.listen(reports.append)
    async with bus:
        await bus.publish(Moved("a", 1))
        await failed.wait()
        await bus.drain(timeout=30, retries=False)
        await bus._log.link.call("FLUSHALL")
        await until(lambda: any(isinstance(report, GroupRestored) for report in reports))
        [running] = bus._group_engine.running.values()
        keys = running.storage._keys
        assert await bus._log.link.call("HLEN", keys.retries) == 1


@pytest.mark.parametrize("lost", ["everything", "the lease"])
async def test_a_key_stays_parked_after_a_loss_only_with_its_dead_letter(
    own_server: Server, namespace: str, lost: str
) -> None:
    """Later events of the key would wait for a dead letter that nobody can retry or discard."""
    recorder, reports = Recorder(), list[Any]()

    async def handle(event: Moved) -> None:
        if event.number == 1:
            raise ValueError("no")
        await recorder.handle(event)

    bus = make_bus(own_server, namespace, partitions=1)
    bus.subscribe(Moved, handle, name="sub", retry_count=0, on_exhausted="park_key")
    bus.listen(reports.append)
    async with bus:
        await bus.publish_batch([Moved("a", 1), Moved("a", 2)])
        await bus.drain(timeout=30)
        [running] = bus._group_engine.running.values()
        lease = running.storage._keys.lease
        await bus._log.link.call(*(("FLUSHALL",) if lost == "everything" else ("DEL", lease)))
        await until(lambda: any(isinstance(report, GroupRestored) for report in reports))
        await bus.publish(Moved("a", 3))
        await bus.drain(timeout=30)
        if lost == "the lease":
            assert recorder.numbers == []
            await bus.dead_letters.discard("all")
        await until(lambda: recorder.numbers == ([3] if lost == "everything" else [2, 3]))
        await until(lambda: bus.health().status == "ok")


def test_only_published_positions_of_a_hole_are_reported_as_lost() -> None:
    """Promise 42. Positions that were skipped at a restart would be reported as deleted events."""
    lost: list[tuple[int, int]] = []
    log = RedisLog("redis://127.0.0.1:1/0", namespace="n", partitions=1)
    held = Pages(log, 0, lambda first, last: lost.append((first, last)))
    held.extent = extent_of({b"floor": b"2", b"jump:20": b"9", b"jump:90": b"80"})
    held._report_hole(1, 30)
    assert lost == [(3, 9), (21, 30)]
    lost.clear()
    held._report_hole(10, 20)
    assert lost == []


async def test_a_lagging_subscription_does_not_buffer_all_new_events(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 18. All events published while a handler hangs would be kept in memory."""
    monkeypatch.setattr(pages, "_CACHED_ROWS", 50)
    for module in ("consumer", "feed"):
        monkeypatch.setattr(f"pabal.delivery.{module}.BUFFER_LOW", 8)
    gate, recorder = asyncio.Event(), Recorder()

    async def handle(event: Moved) -> None:
        await gate.wait()
        await recorder.handle(event)

    async with make_bus(shared_server, namespace, handle, partitions=1, lease=10.0) as bus:
        for start in range(0, 600, 20):
            await bus.publish_batch([Moved("a", start + n) for n in range(20)])
        [running] = bus._group_engine.running.values()
        assert running.storage.pages._rows <= 50 + 20
        gate.set()
        await bus.drain(timeout=30)
    assert recorder.numbers == list(range(600))


async def test_a_page_returns_no_more_rows_than_requested(shared_server: Server, namespace: str) -> None:
    """The events that do not fit in the page would be skipped, and count as handled."""
    log = RedisLog(shared_server.url, namespace=namespace, partitions=1)
    await log.open()
    held = Pages(log, 0, lambda first, last: None)
    for start in range(0, 12, 3):
        await log.append(moves(1, 12)[start : start + 3])
    seen: list[int] = []
    after = 0
    while len(seen) < 12:
        page = await held.page(after, 6)
        assert 0 < len(page.rows) <= 6
        seen += [row.position for row in page.rows]
        after = page.upto
    assert seen == list(range(1, 13))
    await log.close()


async def test_reading_up_to_a_hole_announces_the_head_beyond_it(
    shared_server: Server, namespace: str
) -> None:
    """Promise 40. Events another process published around a server restart would never be read."""
    log = RedisLog(shared_server.url, namespace=namespace, partitions=1)
    await log.open()
    held = Pages(log, 0, lambda first, last: None)
    heads: list[int] = []
    held.on_head = heads.append
    await log.append(moves(1, 2))
    await log.append(moves(1, 5)[2:])
    await log.link.call("XTRIM", log.keys.log(0), "MAXLEN", 1)
    page = await held.page(0, 6)
    assert (page.rows, page.upto) == ((), 2)
    assert heads == [5]
    await log.close()
