"""The commands and queries of the application."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from examples.trading.domain.events import Side
from pabal.cqrs import Command, Query


class PlaceOrder(Command[str]):
    """Ask to trade at a limit, or better; the result is the order's id."""

    order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    limit: Decimal

    def validate(self) -> None:
        """Raise ValueError for an order that makes no sense."""
        if not self.order_id or not self.symbol:
            raise ValueError("an order needs an id and a symbol")


class FillOrder(Command[None]):
    """Fill an order at the market's price."""

    order_id: str
    price: Decimal


class SettleOrder(Command[None]):
    """Add a filled order's trade to its position."""

    order_id: str
    price: Decimal


class CancelOrder(Command[None]):
    """Cancel an order."""

    order_id: str
    reason: str


class Holding(msgspec.Struct, frozen=True):
    """The quantity held of a symbol, and the cash that trading it cost or earned so far."""

    symbol: str
    quantity: Decimal
    cash: Decimal


class OpenOrder(msgspec.Struct, frozen=True):
    """An order that waits for the market."""

    order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    limit: Decimal


class GetPortfolio(Query[list[Holding]]):
    """Return every symbol that is, or was, held."""


class GetOrderBook(Query[list[OpenOrder]]):
    """Return the waiting orders, of one symbol or of all."""

    symbol: str | None = None
