"""The service: ``uvicorn --factory examples.fastapi_orders.app:create_app``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, Field

from pabal import DomainEvent, EventBusFactory
from pabal.integrations.starlette import bus_lifespan
from pabal.observability.prometheus import PrometheusExporter

_TABLE = "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, item TEXT, quantity INT, status TEXT)"


class OrderPlaced(DomainEvent):
    """A customer placed an order."""

    event_type: ClassVar[str] = "orders.placed"
    aggregate_type: ClassVar[str] = "order"
    order_id: str
    item: str
    quantity: int

    @property
    def aggregate_id(self) -> str:
        """Keep the events of one order in order."""
        return self.order_id


class NewOrder(BaseModel):
    """The body of a request for a new order."""

    item: str = Field(min_length=1, max_length=100)
    quantity: int = Field(gt=0)


def create_app(file: str | Path = "orders.db") -> FastAPI:
    """Return the service on one SQLite file, which holds its own table and the event log."""
    bus, storage = EventBusFactory.create_complete_event_system(file, owns_storage=True)
    exporter = PrometheusExporter()
    exporter.watch(bus, name="orders")

    @asynccontextmanager
    async def with_table(_: FastAPI) -> AsyncIterator[None]:
        await storage.transact(lambda tx: tx.execute(_TABLE))
        yield

    app = FastAPI(title="Orders", lifespan=bus_lifespan(bus, inner=with_table))
    app.mount("/metrics", exporter.asgi())
    app.state.storage = storage

    @bus.on(OrderPlaced, name="confirm-order", start="beginning")
    async def confirm(event: OrderPlaced) -> None:
        # Harmless if it runs twice: the second update changes nothing.
        await storage.transact(
            lambda tx: tx.execute("UPDATE orders SET status = 'confirmed' WHERE id = ?", (event.order_id,))
        )

    @app.post("/orders", status_code=202)
    async def place(order: NewOrder) -> dict[str, str]:
        order_id = str(uuid4())

        def save(tx: Any) -> None:
            row = (order_id, order.item, order.quantity, "placed")
            tx.execute("INSERT INTO orders VALUES (?, ?, ?, ?)", row)
            tx.store_event(OrderPlaced(order_id, order.item, order.quantity))

        await storage.transact(save)  # stores both the row and the event, or neither
        return {"id": order_id}

    @app.get("/orders/{order_id}")
    async def show(order_id: str) -> dict[str, Any]:
        query = "SELECT item, quantity, status FROM orders WHERE id = ?"
        rows = await storage.query(query, (order_id,))  # does not wait for the writer, as transact would
        if not rows:
            raise HTTPException(404, f"no order {order_id}")
        item, quantity, status = rows[0]
        return {"id": order_id, "item": item, "quantity": quantity, "status": status}

    @app.get("/health")
    async def health(response: Response) -> dict[str, Any]:
        found = bus.health()
        response.status_code = 200 if found else 503
        return {"status": found.status, "reasons": list(found.reasons)}

    return app
