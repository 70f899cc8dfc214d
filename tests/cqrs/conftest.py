from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pabal import InMemoryEventStorage, SqliteEventStorage


@pytest.fixture(params=["memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    opened: Any = InMemoryEventStorage()
    if request.param == "sqlite":
        opened = SqliteEventStorage(tmp_path / "shop.db", durability="normal")
    yield opened
    await opened.aclose()
