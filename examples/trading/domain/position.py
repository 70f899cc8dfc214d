"""``Position``: how much of a symbol is held."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from examples.trading.domain.events import PositionChanged, Side
from pabal.domain import Aggregate, applies


class NotHeldError(Exception):
    """A sale exceeds what is held."""


class Position(Aggregate):
    """The quantity held of one symbol; never negative."""

    aggregate_type: ClassVar[str] = "trading_position"
    held: Decimal = Decimal(0)

    def trade(self, order_id: str, side: Side, quantity: Decimal, price: Decimal) -> None:
        """Add a trade. Raises NotHeldError if it sells more than is held."""
        if side == "sell" and quantity > self.held:
            raise NotHeldError(f"{self.id}: {quantity} cannot be sold, {self.held} are held")
        change = quantity if side == "buy" else -quantity
        self.record(PositionChanged(self.id, order_id, change, -change * price))

    @applies(PositionChanged)
    def _changed(self, event: PositionChanged) -> None:
        self.held += event.change
