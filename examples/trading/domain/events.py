"""The events of orders and positions."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar, Literal

from pabal.domain import DomainEvent

Side = Literal["buy", "sell"]


class OrderEvent(DomainEvent):
    """Base class of an order's events."""

    _abstract: ClassVar[bool] = True
    aggregate_type: ClassVar[str] = "trading_order"
    order_id: str

    @property
    def aggregate_id(self) -> str:
        """Return the order's id."""
        return self.order_id


class OrderPlaced(OrderEvent):
    """A customer wants to trade at a limit, or better."""

    event_type: ClassVar[str] = "trading.order-placed"
    symbol: str
    side: Side
    quantity: Decimal
    limit: Decimal


class OrderFilled(OrderEvent):
    """The market filled the order at a price."""

    event_type: ClassVar[str] = "trading.order-filled"
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal


class OrderSettled(OrderEvent):
    """The position includes the order's trade."""

    event_type: ClassVar[str] = "trading.order-settled"


class OrderCancelled(OrderEvent):
    """The order was cancelled, for the given reason."""

    event_type: ClassVar[str] = "trading.order-cancelled"
    reason: str


class PositionChanged(DomainEvent):
    """A position grew or shrank; ``cash`` is what that cost (negative) or earned."""

    event_type: ClassVar[str] = "trading.position-changed"
    aggregate_type: ClassVar[str] = "trading_position"
    symbol: str
    order_id: str
    change: Decimal
    cash: Decimal

    @property
    def aggregate_id(self) -> str:
        """Return the symbol: there is one position for each."""
        return self.symbol
