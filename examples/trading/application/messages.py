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
        """Raise ValueError for what no order could be."""
        if not self.order_id or not self.symbol:
            raise ValueError("an order needs an id and a symbol")


class FillOrder(Command[None]):
    """Report the market's price to an order."""

    order_id: str
    price: Decimal


class SettleOrder(Command[None]):
    """Bring a filled order's trade into its position."""

    order_id: str
    price: Decimal


class CancelOrder(Command[None]):
    """Give an order up."""

    order_id: str
    reason: str


class Holding(msgspec.Struct, frozen=True):
    """Tell what is held of a symbol, and what trading it cost or brought so far."""

    symbol: str
    quantity: Decimal
    cash: Decimal


class OpenOrder(msgspec.Struct, frozen=True):
    """Tell of an order that waits for the market."""

    order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    limit: Decimal


class GetPortfolio(Query[list[Holding]]):
    """Ask for everything that is, or was, held."""


class GetOrderBook(Query[list[OpenOrder]]):
    """Ask for the orders that wait, those of one symbol or of all."""

    symbol: str | None = None
