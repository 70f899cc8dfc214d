"""What happens to orders and positions."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar, Literal

from pabal.domain import DomainEvent

Side = Literal["buy", "sell"]


class OrderEvent(DomainEvent):
    """Be an event of one order."""

    _abstract: ClassVar[bool] = True
    aggregate_type: ClassVar[str] = "trading_order"
    order_id: str

    @property
    def aggregate_id(self) -> str:
        """Return the order's id."""
        return self.order_id


class OrderPlaced(OrderEvent):
    """Say that somebody wants to trade at a limit, or better."""

    event_type: ClassVar[str] = "trading.order-placed"
    symbol: str
    side: Side
    quantity: Decimal
    limit: Decimal


class OrderFilled(OrderEvent):
    """Say that the market took the order at a price."""

    event_type: ClassVar[str] = "trading.order-filled"
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal


class OrderSettled(OrderEvent):
    """Say that the position holds what was traded."""

    event_type: ClassVar[str] = "trading.order-settled"


class OrderCancelled(OrderEvent):
    """Say that nothing comes of the order, and why."""

    event_type: ClassVar[str] = "trading.order-cancelled"
    reason: str


class PositionChanged(DomainEvent):
    """Say by how much a position grew or shrank, and what that cost or brought."""

    event_type: ClassVar[str] = "trading.position-changed"
    aggregate_type: ClassVar[str] = "trading_position"
    symbol: str
    order_id: str
    change: Decimal
    cash: Decimal

    @property
    def aggregate_id(self) -> str:
        """Return the symbol: there is one position in each."""
        return self.symbol
