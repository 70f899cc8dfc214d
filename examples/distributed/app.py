"""The application: what each part does. Which process it runs in is decided in ``__main__``."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any, ClassVar

from pabal import DomainEvent


class TickReceived(DomainEvent):
    """A symbol has a new price; ``average`` is its average price."""

    event_type: ClassVar[str] = "distributed.tick_received"
    aggregate_type: ClassVar[str] = "symbol"
    symbol: str
    number: int
    price: Decimal
    average: Decimal

    @property
    def aggregate_id(self) -> str:
        """Keep the events of a symbol in order."""
        return self.symbol


class OrderPlaced(DomainEvent):
    """The strategy asks the broker to trade a quantity; negative to sell."""

    event_type: ClassVar[str] = "distributed.order_placed"
    aggregate_type: ClassVar[str] = "symbol"
    symbol: str
    quantity: int
    price: Decimal

    @property
    def aggregate_id(self) -> str:
        """Keep the events of a symbol in order."""
        return self.symbol


class OrderFilled(DomainEvent):
    """The broker filled an order."""

    event_type: ClassVar[str] = "distributed.order_filled"
    aggregate_type: ClassVar[str] = "symbol"
    symbol: str
    quantity: int
    price: Decimal

    @property
    def aggregate_id(self) -> str:
        """Keep the events of a symbol in order."""
        return self.symbol


def follow_up_id(cause: DomainEvent, what: str) -> str:
    """Return the id of the event that follows from another: the same each time that one is handled.

    If a process dies after publishing but before its progress is saved, the event is delivered again, and its
    handler publishes the same follow-up again. The log stores it once.
    """
    return str(uuid.uuid5(uuid.UUID(cause.event_id), what))


class Strategy:
    """Buy one below the average and sell one above it."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus

    async def handle(self, tick: TickReceived) -> None:
        """Handle a tick."""
        if tick.price == tick.average:
            return
        quantity = 1 if tick.price < tick.average else -1
        order = OrderPlaced(tick.symbol, quantity, tick.price, event_id=follow_up_id(tick, "order"))
        await self._bus.publish(order)


class Broker:
    """Fill every order at its price."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus

    async def handle(self, order: OrderPlaced) -> None:
        """Handle an order."""
        filled = OrderFilled(order.symbol, order.quantity, order.price, event_id=follow_up_id(order, "fill"))
        await self._bus.publish(filled)


class Portfolio:
    """Keep the position and the cash of each symbol; a fill that is delivered again changes nothing."""

    def __init__(self) -> None:
        self.positions: dict[str, int] = {}
        self.cash = Decimal(0)
        self._seen: set[str] = set()

    async def handle(self, fill: OrderFilled) -> None:
        """Handle a fill."""
        if fill.event_id in self._seen:
            return
        self._seen.add(fill.event_id)
        self.positions[fill.symbol] = self.positions.get(fill.symbol, 0) + fill.quantity
        self.cash -= fill.quantity * fill.price

    def summary(self) -> list[str]:
        """Return the positions as lines."""
        lines = [f"{symbol} {quantity:+d}" for symbol, quantity in sorted(self.positions.items())]
        return [*lines, f"cash {self.cash}", f"fills {len(self._seen)}"]


def ticks(count: int) -> list[TickReceived]:
    """Return a tape of several symbols, the same on each call."""
    made: list[TickReceived] = []
    for number in range(count):
        symbol = f"SYM-{number % 12:02d}"
        swing = (number * 7919) % 201 - 100
        made.append(TickReceived(symbol, number, Decimal(1000 + swing), Decimal(1000)))
    return made
