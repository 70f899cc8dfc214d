"""The service as its clients see it, on a real file."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from examples.fastapi_orders.app import OrderPlaced, create_app
from pabal.errors import PabalError


@asynccontextmanager
async def _service(file: Path) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    app = create_app(file)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://orders") as client:
            yield app, client


async def test_an_order_is_confirmed_after_the_response(tmp_path: Path) -> None:
    """Orders would keep the status "placed" forever."""
    async with _service(tmp_path / "orders.db") as (app, client):
        placed = await client.post("/orders", json={"item": "lamp", "quantity": 2})
        assert placed.status_code == 202
        await app.state.bus.drain()
        shown = (await client.get(f"/orders/{placed.json()['id']}")).json()
        assert (shown["item"], shown["quantity"], shown["status"]) == ("lamp", 2, "confirmed")
        metrics = (await client.get("/metrics/")).text
        assert 'pabal_deliveries_handled_total{bus="orders",subscription="confirm-order"} 1.0' in metrics
        assert (await client.get("/health")).json() == {"status": "ok", "reasons": []}


async def test_an_unconfirmed_order_is_confirmed_after_a_restart(tmp_path: Path) -> None:
    """If the process died between the response and the handler, the order would never be confirmed."""
    async with _service(tmp_path / "orders.db") as (app, client):
        await app.state.bus.subscriptions.pause("confirm-order")  # so that the handler does not run
        placed = (await client.post("/orders", json={"item": "lamp", "quantity": 1})).json()["id"]
        assert (await client.get(f"/orders/{placed}")).json()["status"] == "placed"
        assert (await client.get("/health")).json()["status"] == "degraded"
    async with _service(tmp_path / "orders.db") as (again, client):
        await again.state.bus.subscriptions.resume("confirm-order")
        await again.state.bus.drain()
        assert (await client.get(f"/orders/{placed}")).json()["status"] == "confirmed"


async def test_shutdown_closes_the_file_and_leaves_no_write_ahead_log(tmp_path: Path) -> None:
    """The write-ahead log would remain, and a copy of the file alone would lack its events."""
    async with _service(tmp_path / "orders.db") as (_, client):
        await client.post("/orders", json={"item": "lamp", "quantity": 2})
        assert len(os.listdir(tmp_path)) > 1
    assert os.listdir(tmp_path) == ["orders.db"]


async def test_an_event_that_cannot_be_published_leaves_no_order_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There would be orders that no handler ever receives."""

    def too_large(order_id: str, item: str, quantity: int) -> Any:
        return OrderPlaced(order_id, item * 1_000_000, quantity)

    async with _service(tmp_path / "orders.db") as (app, client):
        first = (await client.post("/orders", json={"item": "lamp", "quantity": 1})).json()["id"]
        monkeypatch.setattr("examples.fastapi_orders.app.OrderPlaced", too_large)
        with pytest.raises(PabalError):
            await client.post("/orders", json={"item": "lamp", "quantity": 1})
        rows = await app.state.storage.transact(lambda tx: tx.execute("SELECT id FROM orders").fetchall())
        assert rows == [(first,)]


@pytest.mark.parametrize("order", [{}, {"item": "", "quantity": 1}, {"item": "lamp", "quantity": 0}])
async def test_an_invalid_order_is_rejected_and_stores_nothing(tmp_path: Path, order: dict[str, Any]) -> None:
    """Handlers would receive invalid orders."""
    async with _service(tmp_path / "orders.db") as (app, client):
        assert (await client.post("/orders", json=order)).status_code == 422
        assert (await client.get("/orders/none")).status_code == 404
        assert (await app.state.storage.get_event_statistics())["total_events"] == 0
