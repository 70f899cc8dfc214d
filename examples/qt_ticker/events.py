"""The events of the ticker."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from pabal import DomainEvent


class PriceTicked(DomainEvent):
    """A symbol was traded at a price."""

    event_type: ClassVar[str] = "ticker.price_ticked"
    aggregate_type: ClassVar[str] = "symbol"
    symbol: str
    price: Decimal

    @property
    def aggregate_id(self) -> str:
        """Keep the prices of one symbol in order."""
        return self.symbol


class OrderRequested(DomainEvent):
    """The user asked to buy one unit."""

    event_type: ClassVar[str] = "ticker.order_requested"
    aggregate_type: ClassVar[str] = "symbol"
    symbol: str

    @property
    def aggregate_id(self) -> str:
        """Keep the orders of one symbol in order."""
        return self.symbol
