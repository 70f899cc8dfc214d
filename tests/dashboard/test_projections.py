"""Projections on the dashboard, requested over HTTP."""

from __future__ import annotations

from pathlib import Path

from pabal import InMemoryEventBus, SqliteEventStorage
from tests.cli.models import Quantities
from tests.dashboard.support import client
from tests.operations.conftest import ShopOrder


async def test_the_projections_endpoint_shows_the_state_in_the_file(tmp_path: Path) -> None:
    """The operator would not see that a page shows yesterday's rows."""
    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        await storage.store_events([ShopOrder(f"o-{n}", n) for n in range(5)])
        async with Quantities(storage):
            pass
        await storage.store_events([ShopOrder(f"o-{n}", n) for n in range(5, 8)])
        async with client(storage) as http:
            shown = (await http.get("/api/projections")).json()
    (row,) = shown["items"]
    assert (row["name"], row["version"], row["position"], row["lag"]) == ("quantities", 1, 5, 3)
    assert (row["tables"], row["rebuild"], shown["head"]) == (["quantities"], None, 8)


async def test_a_bus_without_a_file_has_no_projections() -> None:
    """The screen would report a server error."""
    async with client(InMemoryEventBus()) as http:
        assert (await http.get("/api/projections")).json() == {"items": [], "head": 0}
