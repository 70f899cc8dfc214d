from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage, SqliteEventStorage

AnyStorage = InMemoryEventStorage | SqliteEventStorage


@pytest.fixture(params=["memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyStorage]:
    opened = InMemoryEventStorage() if request.param == "memory" else SqliteEventStorage(tmp_path / "log.db")
    async with opened:
        yield opened


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[InMemoryEventBus]:
    """A running bus on a file."""
    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        bus = InMemoryEventBus(storage)
        await bus.start()
        yield bus
        await bus.stop()
