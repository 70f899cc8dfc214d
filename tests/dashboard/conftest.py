"""A running bus on a log with three parcels, of which two weigh nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pabal import InMemoryEventBus, SqliteEventStorage
from tests.dashboard.support import Scale, Shipped, subscribe


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[InMemoryEventBus, Scale]]:
    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        bus = InMemoryEventBus(event_storage=storage)
        scale = subscribe(bus)
        async with bus:
            await bus.publish_batch([Shipped("p-1", 500), Shipped("p-2", 0), Shipped("p-3", -1)])
            await bus.drain()
            yield bus, scale


@pytest.fixture
def bus(running: tuple[InMemoryEventBus, Scale]) -> InMemoryEventBus:
    return running[0]


@pytest.fixture
def scale(running: tuple[InMemoryEventBus, Scale]) -> Scale:
    return running[1]
