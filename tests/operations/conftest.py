"""A small shop whose handler fails for one kind of order, on a bus with a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest

from pabal import DomainEvent, EventBusFactory, InMemoryEventBus, RetryPolicy


class ShopOrder(DomainEvent):
    event_type: ClassVar[str] = "shop.ordered"
    aggregate_type: ClassVar[str | None] = "order"
    order_id: str
    quantity: int
    email: str = "kim@example.com"

    @property
    def aggregate_id(self) -> str:
        return self.order_id


class ShopPacked(DomainEvent):
    event_type: ClassVar[str] = "shop.packed"
    order_id: str


class Shop:
    """The bus, and what its handlers have received."""

    def __init__(self, bus: InMemoryEventBus) -> None:
        self.bus = bus
        self.accepts_all = False
        self.packed: list[int] = []
        self.packed_one = asyncio.Event()
        bus.subscribe(ShopOrder, self.pack, name="pack", retry=RetryPolicy(max_attempts=2, base_delay=0))

    async def pack(self, event: ShopOrder) -> None:
        if event.quantity < 0 and not self.accepts_all:
            raise ValueError(f"no such quantity for {event.email}")
        self.packed.append(event.quantity)
        self.packed_one.set()
        await self.bus.publish(ShopPacked(event.order_id))


async def retry_dead_letters(path: Path) -> None:
    """Let a shop that accepts every quantity deliver its dead letters again."""
    async with EventBusFactory.create_default_event_bus(path, durability="normal") as bus:
        Shop(bus).accepts_all = True
        await bus.dead_letters.retry("all")
        await bus.drain()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
async def shop(path: Path) -> AsyncIterator[Shop]:
    bus = EventBusFactory.create_default_event_bus(path, durability="normal")
    async with bus:
        yield Shop(bus)


@pytest.fixture
async def stopped(path: Path) -> Path:
    """The file of a stopped shop: three orders packed, two with a negative quantity parked."""
    bus = EventBusFactory.create_default_event_bus(path, durability="normal")
    async with bus:
        Shop(bus)
        for number, quantity in enumerate((1, -1, 2, -2, 3)):
            await bus.publish(ShopOrder(f"o-{number}", quantity))
        await bus.drain()
    return path
