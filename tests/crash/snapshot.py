"""A reader that holds a snapshot of the log while others publish, and then releases it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

from pabal import EventBusFactory
from pabal.storage.sqlite.wal import LIMIT
from tests.crash.events import Step

PUBLISHERS = 20
AT_ONCE = 20
FILLER = "x" * 400


class SnapshotResult(NamedTuple):
    """What happened while the snapshot was held, and afterwards."""

    published: int
    longest_wait: float
    """The longest time that a publisher waited, in seconds."""
    largest: int
    """Size of the write-ahead log in bytes when the reader released its snapshot."""
    truncated_after: float | None
    """Seconds from then until the log was below its limit; None if that took more than a minute."""


async def hold_a_snapshot(path: Path, seconds: float) -> SnapshotResult:
    """Publish and handle while a reader has an open transaction, and then until the log is truncated."""
    bus, storage = EventBusFactory.create_complete_event_system(path)
    handled = published = 0
    longest = 0.0
    done = False

    async def handle(event: Step) -> None:
        nonlocal handled
        handled += 1

    async def publish(key: str) -> None:
        nonlocal published, longest
        number = 0
        while not done:
            events = [Step(key, number + one, FILLER) for one in range(AT_ONCE)]
            begun = time.monotonic()
            await bus.publish_batch(events)
            longest = max(longest, time.monotonic() - begun)
            number += AT_ONCE
            published += AT_ONCE

    bus.subscribe(Step, handle, name="handler")
    async with bus, asyncio.TaskGroup() as publishers:
        await bus.publish(Step("first", 0))
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        before = _count(reader)
        for number in range(PUBLISHERS):
            publishers.create_task(publish(f"key-{number}"))
        await asyncio.sleep(seconds)
        assert _count(reader) == before, "the snapshot moved"
        largest, while_held, wait = _size(path), published, longest
        reader.close()
        truncated_after = await _wait_for_truncation(path)
        done = True
    await storage.aclose()
    assert handled == published + 1, f"handled {handled} of {published + 1}"
    return SnapshotResult(while_held, wait, largest, truncated_after)


def _count(reader: sqlite3.Connection) -> int:
    return int(reader.execute("SELECT count(*) FROM events").fetchone()[0])


def _size(path: Path) -> int:
    return os.stat(f"{path}-wal").st_size


async def _wait_for_truncation(path: Path) -> float | None:
    begun = time.monotonic()
    while time.monotonic() - begun < 60:
        if _size(path) < LIMIT:
            return time.monotonic() - begun
        await asyncio.sleep(0.05)
    return None
