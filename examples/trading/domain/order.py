"""``Order``: what can happen to an order, and in which state."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from examples.trading.domain.events import OrderCancelled, OrderFilled, OrderPlaced, OrderSettled, Side
from pabal.domain import Aggregate, applies


class OrderError(ValueError):
    """An action would break a rule of orders."""


class Order(Aggregate):
    """An order: placed, then filled and settled, or cancelled."""

    aggregate_type: ClassVar[str] = "trading_order"
    state: str = "new"
    symbol: str = ""
    side: Side = "buy"
    quantity: Decimal = Decimal(0)
    limit: Decimal = Decimal(0)

    def place(self, symbol: str, side: Side, quantity: Decimal, limit: Decimal) -> None:
        """Place the order. Raises OrderError if it was placed already, or a number is not above zero."""
        self._must_be("new")
        if quantity <= 0 or limit <= 0:
            raise OrderError(f"order {self.id}: quantity and limit must be above zero")
        self.record(OrderPlaced(self.id, symbol, side, quantity, limit))

    def fill(self, price: Decimal) -> None:
        """Fill the order at the market's price. Raises OrderError if that is worse than the limit."""
        self._must_be("placed")
        if not self.takes(price):
            raise OrderError(f"order {self.id}: {price} is worse than the limit {self.limit}")
        self.record(OrderFilled(self.id, self.symbol, self.side, self.quantity, price))

    def settle(self) -> None:
        """Mark the filled order as settled."""
        self._must_be("filled")
        self.record(OrderSettled(self.id))

    def cancel(self, reason: str) -> None:
        """Cancel the order, unless it is settled."""
        if self.state not in ("placed", "filled"):
            raise OrderError(f"order {self.id} is {self.state} and cannot be cancelled")
        self.record(OrderCancelled(self.id, reason))

    def takes(self, price: Decimal) -> bool:
        """Return whether a price is within the limit."""
        return price <= self.limit if self.side == "buy" else price >= self.limit

    def _must_be(self, state: str) -> None:
        if self.state != state:
            raise OrderError(f"order {self.id} is {self.state}, not {state}")

    @applies(OrderPlaced)
    def _placed(self, event: OrderPlaced) -> None:
        self.state = "placed"
        self.symbol, self.side = event.symbol, event.side
        self.quantity, self.limit = event.quantity, event.limit

    @applies(OrderFilled)
    def _filled(self, event: OrderFilled) -> None:
        self.state = "filled"

    @applies(OrderSettled)
    def _settled(self, event: OrderSettled) -> None:
        self.state = "settled"

    @applies(OrderCancelled)
    def _cancelled(self, event: OrderCancelled) -> None:
        self.state = "cancelled"
