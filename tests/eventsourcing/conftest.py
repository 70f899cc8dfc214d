from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pabal import InMemoryEventStorage, SqliteEventStorage

AnyStorage = InMemoryEventStorage | SqliteEventStorage


@pytest.fixture(params=["memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyStorage]:
    made = InMemoryEventStorage() if request.param == "memory" else SqliteEventStorage(tmp_path / "log.db")
    async with made:
        yield made
