"""A log with a bit of everything, and a client for its dashboard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import httpx

from pabal import DomainEvent, InMemoryEventBus, RetryPolicy
from pabal.dashboard import create_dashboard

BASE = "http://127.0.0.1:8420"
TOKEN = "a-token-that-is-long-enough"


class Shipped(DomainEvent):
    event_type: ClassVar[str] = "dashboard.shipped"
    aggregate_type: ClassVar[str] = "parcel"
    parcel: str
    grams: int
    email: str = "kim@example.com"

    @property
    def aggregate_id(self) -> str:
        return self.parcel


class Weighed(DomainEvent):
    event_type: ClassVar[str] = "dashboard.weighed"
    aggregate_type: ClassVar[str] = "parcel"
    parcel: str

    @property
    def aggregate_id(self) -> str:
        return self.parcel


class Scale:
    """A handler that refuses parcels without weight until it is fixed."""

    def __init__(self, bus: InMemoryEventBus) -> None:
        self.bus = bus
        self.fixed = False
        self.seen: list[int] = []

    async def handle(self, event: Shipped) -> None:
        if event.grams <= 0 and not self.fixed:
            raise ValueError(f"{event.parcel} weighs {event.grams} g, says {event.email}")
        self.seen.append(event.grams)
        await self.bus.publish(Weighed(event.parcel))


def subscribe(bus: InMemoryEventBus) -> Scale:
    scale = Scale(bus)
    bus.subscribe(Shipped, scale, name="scale", retry=RetryPolicy(max_attempts=1))
    return scale


@asynccontextmanager
async def client(
    target: Any, *, peer: str = "127.0.0.1", base: str = BASE, **options: Any
) -> AsyncIterator[Any]:
    """Yield a client that talks to a dashboard like one of its own pages."""
    app = create_dashboard(target, **options)
    transport = httpx.ASGITransport(app=app, client=(peer, 40000))
    async with httpx.AsyncClient(transport=transport, base_url=base) as http:
        yield http


async def action_headers(http: Any) -> dict[str, str]:
    """Return the headers that a page of the dashboard sends with a change."""
    session = (await http.get("/api/session")).json()
    return {"x-csrf-token": session["csrf"], "origin": str(http.base_url).rstrip("/")}
