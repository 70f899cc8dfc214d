"""A bus on a file that another program keeps locked stops in time, and continues where it was."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.delivery import background, shutdown
from pabal.ports.telemetry import Report, StorageTrouble
from pabal.storage.sqlite import group_commit
from tests.storage.events import Recorder, Tick


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep a file locked for writing, as another program does that hangs while it holds the lock."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_stop_returns_in_time_while_the_file_is_locked(
    path: Path, storage: SqliteEventStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 8. Each save and release would wait ten more seconds, until a supervisor kills the process."""
    monkeypatch.setattr(group_commit, "_LONGEST_WAIT", 3600.0)
    monkeypatch.setattr(shutdown, "_LAST_SAVE", 0.05)
    bus = InMemoryEventBus(storage)
    handled: list[int] = []
    begun, may_finish = asyncio.Event(), asyncio.Event()

    async def handle(event: Tick) -> None:
        begun.set()
        await may_finish.wait()
        handled.append(event.number)

    bus.subscribe(Tick, handle, name="held")
    await bus.start()
    await bus.publish(Tick("A", 1))
    await begun.wait()
    with locked(path):
        may_finish.set()
        async with asyncio.timeout(20):
            await bus.stop(timeout=0.05)
    assert handled == [1]
    async with asyncio.timeout(20):
        await bus.start()
        await bus.publish(Tick("A", 2))
        await bus.drain()
    assert handled == [1, 2], "what was asked of the file was written once it was free"
    await bus.stop()


async def test_a_restarted_bus_reopens_a_subscription_whose_release_failed(
    path: Path, storage: SqliteEventStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage would consider it held by another bus for ever, which would block all processes."""
    monkeypatch.setattr(group_commit, "_LONGEST_WAIT", 0.0)
    seen = {name: Recorder() for name in ("one", "two")}
    bus = InMemoryEventBus(storage)
    for name, recorder in seen.items():
        bus.subscribe(Tick, recorder, name=name)
    await bus.start()
    with locked(path):
        await bus.stop()
    await bus.start()
    await bus.publish(Tick("A", 1))
    for recorder in seen.values():
        await recorder.reaches(1)
    assert bus.health().status == "ok"
    await bus.stop()


async def test_a_name_unsubscribed_while_the_file_was_locked_can_be_subscribed_again(
    path: Path, storage: SqliteEventStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a failed release were not repeated, the name would stand by until the process ends."""
    monkeypatch.setattr(group_commit, "_LONGEST_WAIT", 0.0)
    monkeypatch.setattr(background, "_PAUSE", 0.01)
    first, second = Recorder(), Recorder()
    bus = InMemoryEventBus(storage)
    subscription = bus.subscribe(Tick, first, name="held")
    await bus.start()
    await bus.publish(Tick("A", 1))
    await bus.drain()
    release_failed = asyncio.Event()

    def record_failure(report: Report) -> None:
        if isinstance(report, StorageTrouble):
            release_failed.set()

    bus.listen(record_failure)
    with locked(path):
        bus.unsubscribe(subscription)
        await release_failed.wait()
    bus.subscribe(Tick, second, name="held")
    await bus.publish(Tick("A", 2))
    await second.reaches(1)
    await bus.stop()
    assert (first.numbers, second.numbers) == ([1], [2])
