from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pabal import InMemoryEventStorage, SqliteEventStorage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def storage(path: Path) -> AsyncIterator[SqliteEventStorage]:
    async with SqliteEventStorage(path) as opened:
        yield opened


@pytest.fixture(params=["memory", "sqlite"])
async def any_storage(
    request: pytest.FixtureRequest, path: Path
) -> AsyncIterator[SqliteEventStorage | InMemoryEventStorage]:
    """Each storage in turn; the one in memory is the reference model for the one in a file."""
    if request.param == "memory":
        async with InMemoryEventStorage() as memory:
            yield memory
    else:
        async with SqliteEventStorage(path) as sqlite:
            yield sqlite
