"""Calls of ``wait_for`` on a bus with a log share one reader of it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage, StorageError
from pabal.bus import log_watch
from pabal.domain.envelope import decode_event
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import Backend, spin_loop


def has_number(number: int, event: Moved) -> bool:
    """Return whether an event has a number."""
    return event.n == number


async def test_an_event_is_decoded_once_for_all_calls_that_wait(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a thousand requests that wait for answers, each event would cost a thousand times as much."""
    bus = await stored.start_bus()
    decoded: list[int] = []

    def decode(row: Any) -> Any:
        decoded.append(row.position)
        return decode_event(row)

    monkeypatch.setattr(log_watch, "decode_event", decode)
    waiting = [
        asyncio.create_task(bus.wait_for(Moved, where=partial(has_number, n), timeout=30)) for n in range(100)
    ]
    await spin_loop()
    for n in range(100):
        await bus.publish(NoteTaken(n))
        await bus.publish(Moved("rook", n))
    assert [event.n for event in await asyncio.gather(*waiting)] == list(range(100))
    assert decoded == list(range(2, 201, 2))


async def test_a_call_with_an_old_receipt_and_the_reader_look_at_each_event_once(stored: Backend) -> None:
    """Where the call's own search ends and the reader goes on, an event would be missed or matched twice."""
    bus = await stored.start_bus()
    receipt = await bus.publish(Moved("rook", 0))
    await bus.publish_batch([Moved("rook", n) for n in range(1, 600)])
    first = asyncio.create_task(bus.wait_for(Moved, where=lambda event: event.n == 1200, timeout=30))
    await spin_loop()
    asked: list[int] = []

    def is_last(event: Moved) -> bool:
        asked.append(event.n)
        return event.n == 1200

    second = asyncio.create_task(bus.wait_for(Moved, where=is_last, since=receipt, timeout=30))
    for n in range(600, 1201):
        await bus.publish(Moved("rook", n))
    assert [(await first).n, (await second).n] == [1200, 1200]
    assert asked == list(range(1, 1201))


async def test_other_tasks_run_while_many_calls_look_at_many_events(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of events for a thousand calls would hold up the event loop for a second."""
    bus = await stored.start_bus()
    monkeypatch.setattr(log_watch, "_TURN", 0.0)
    turns = 0
    turns_seen: set[int] = set()

    def note_turn(event: Moved) -> bool:
        turns_seen.add(turns)
        return event.n == 99

    async def count_turns() -> None:
        nonlocal turns
        while len(turns_seen) < 100:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())  # before the first event can be looked at
    waiting = asyncio.create_task(bus.wait_for(Moved, where=note_turn, timeout=30))
    await spin_loop()
    await bus.publish_batch([Moved("rook", n) for n in range(100)])
    await waiting
    counting.cancel()
    assert len(turns_seen) == 100


async def test_a_failed_read_fails_all_calls_and_later_calls_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would wait for ever, since nobody reads for them any more."""
    storage = InMemoryEventStorage()
    bus = InMemoryEventBus(storage)
    await bus.start()
    read_page, failures = storage.read_page, [StorageError(path="events.db", reason="disk I/O error")]

    async def read_or_fail(after: int, *, limit: int) -> Any:
        if failures:
            raise failures.pop()
        return await read_page(after, limit=limit)

    waiting = [asyncio.create_task(bus.wait_for(Moved, timeout=30)) for _ in range(3)]
    await spin_loop()
    monkeypatch.setattr(storage, "read_page", read_or_fail)
    await bus.publish(Moved("rook", 1))
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [StorageError] * 3
    again = asyncio.create_task(bus.wait_for(Moved, timeout=30))
    await spin_loop()
    await bus.publish(Moved("rook", 2))
    assert (await again).n == 2
    await bus.stop()


async def test_the_reader_ends_with_the_bus_and_a_restarted_bus_has_another(stored: Backend) -> None:
    """A task left behind would keep the loop from closing in silence; the next run would wait for nobody."""
    bus = await stored.start_bus()
    for n in range(2):
        waiting = asyncio.create_task(bus.wait_for(Moved, timeout=30))
        await spin_loop()
        await bus.publish(Moved("rook", n))
        assert (await waiting).n == n
        await bus.stop()
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "pabal-watch"]
        await bus.start()
