"""The portfolio: a read model of what is held and what it is worth, for the live view and the summary."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from pabal.demo.events import CandleClosed, PositionChanged


class Holding(msgspec.Struct):
    """One symbol: its position, and the close of its last candle."""

    symbol: str
    fills: int = 0
    quantity: Decimal = Decimal(0)
    average_price: Decimal = Decimal(0)
    realized: Decimal = Decimal(0)
    fees: Decimal = Decimal(0)
    last_price: Decimal | None = None

    @property
    def unrealized(self) -> Decimal:
        """Return what closing the position at the last price would earn."""
        if self.last_price is None or not self.quantity:
            return Decimal(0)
        return self.quantity * (self.last_price - self.average_price)

    @property
    def profit(self) -> Decimal:
        """Return profit or loss after fees."""
        return self.realized + self.unrealized - self.fees


class Portfolio:
    """Track positions and prices. Later events replace earlier ones, so handling one twice does no harm."""

    event_classes = (PositionChanged, CandleClosed)

    def __init__(self) -> None:
        self.holdings: dict[str, Holding] = {}

    async def handle(self, events: Sequence[PositionChanged | CandleClosed]) -> None:
        """Apply a batch of events."""
        for event in events:
            self.apply(event)

    def apply(self, event: PositionChanged | CandleClosed) -> None:
        """Apply one event."""
        holding = self.holdings.get(event.symbol)
        if holding is None:
            holding = self.holdings[event.symbol] = Holding(event.symbol)
        if isinstance(event, CandleClosed):
            holding.last_price = event.close
            return
        holding.fills = event.fills
        holding.quantity = event.quantity
        holding.average_price = event.average_price
        holding.realized = event.realized
        holding.fees = event.fees

    def sorted_holdings(self) -> list[Holding]:
        """Return the holdings, sorted by symbol."""
        return [self.holdings[symbol] for symbol in sorted(self.holdings)]
