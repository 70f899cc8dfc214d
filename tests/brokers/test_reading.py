"""Reading from the log: after a trim, and events that are large."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from pabal.brokers.redis import pages
from pabal.brokers.redis.wire import Entry, decode_entry
from tests.brokers.events import Moved, Recorder, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus


def has_number(number: int, event: Moved) -> bool:
    """Return whether an event has a number."""
    return event.number == number


async def test_wait_for_since_a_trimmed_receipt_returns_the_next_event(
    shared_server: Server, namespace: str
) -> None:
    """``wait_for`` would raise an IndexError once all events are handled and trimmed."""
    async with make_bus(shared_server, namespace, Recorder(), partitions=2, keep=0) as bus:
        receipt = await bus.publish(Moved("a", 1))
        await bus.drain(timeout=30)
        assert bus._coordinator is not None
        await bus._coordinator.trim()
        waiting = asyncio.ensure_future(bus.wait_for(Moved, since=receipt, timeout=30))
        await asyncio.sleep(0)
        while not waiting.done():
            await bus.publish(Moved("b", 2))
        assert (await waiting).number == 2


async def test_calls_that_wait_share_the_reads_of_the_server(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred waiting requests would ask the server a hundred times as often as one."""
    async with make_bus(shared_server, namespace, partitions=2) as bus:
        reads, read_entries = 0, bus._log.read_entries

        async def count_reads(partition: int, after: int, limit: int) -> list[Entry]:
            nonlocal reads
            reads += 1
            return await read_entries(partition, after, limit)

        monkeypatch.setattr(bus._log, "read_entries", count_reads)
        waiting = [
            asyncio.ensure_future(bus.wait_for(Moved, where=partial(has_number, n), timeout=30))
            for n in range(100)
        ]
        watch = bus._watch
        assert watch is not None
        await until(lambda: len(watch._calls) == 100)
        reads = 0
        for n in range(100):
            await bus.publish(Moved(str(n), n))
        assert [event.number for event in await asyncio.gather(*waiting)] == list(range(100))
        assert reads < 100 * 100


async def test_large_events_are_not_buffered_without_limit(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of events of a megabyte would wait in memory for a handler slower than the publishers."""
    monkeypatch.setattr(pages, "_CACHED_BYTES", 1000)
    monkeypatch.setattr(pages, "_ENTRIES", 1)
    go, numbers = asyncio.Event(), []

    async def handle(event: Moved) -> None:
        await go.wait()
        numbers.append(event.number)

    async with make_bus(shared_server, namespace, partitions=1, lease=10.0) as bus:
        bus.subscribe(Moved, handle, name="sub")
        await until(lambda: bus.partitions == [0])
        for number in range(40):
            bus._group_engine.running[0].storage.pages.follows = True
            await bus.publish(Moved("k" * 200, number))
        [running] = bus._group_engine.running.values()
        assert running.storage.pages._bytes < 3000
        go.set()
        await bus.drain(timeout=30)
    assert numbers == list(range(40))


async def test_single_rows_of_a_large_entry_are_read_with_one_request(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the dead letters of a large batch would fetch and decode the whole batch when it is retried."""
    async with make_bus(shared_server, namespace, Recorder(), partitions=1) as bus:
        await until(lambda: bus.partitions == [0])
        await bus.publish_batch([Moved(str(number), number) for number in range(200)])
        await bus.drain(timeout=30)
        [running] = bus._group_engine.running.values()
        decoded = 0

        def count_decoded(*entry: Any) -> Entry:
            nonlocal decoded
            decoded += 1
            return decode_entry(*entry)

        monkeypatch.setattr(pages, "decode_entry", count_decoded)
        for position in range(1, 201):
            [row] = await running.storage.pages.find([position])
            assert row.position == position
        assert decoded == 1
