"""What happens in the trading application."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import ClassVar, Literal
from uuid import NAMESPACE_OID, uuid5

import msgspec

from pabal import DomainEvent

Side = Literal["buy", "sell"]
TapeKind = Literal["trades", "candles"]

_NAMESPACE = uuid5(NAMESPACE_OID, "pabal.demo")


def derived_id(*parts: object) -> str:
    """Return the event id that follows from ``parts``, always the same one.

    Delivery is at least once: after a crash a handler may run again. What it publishes then carries the
    same id and content as the first time, so the log keeps one of it.

    >>> derived_id("run-1", "fill", "order-7") == derived_id("run-1", "fill", "order-7")
    True
    """
    return str(uuid5(_NAMESPACE, "/".join(map(str, parts))))


class Settings(msgspec.Struct, frozen=True):
    """Hold everything besides the tape that the result of a run depends on."""

    seed: int
    candle_seconds: int
    fast: int
    slow: int
    order_value: Decimal = Decimal(10_000)
    exposure_limit: Decimal = Decimal(25_000)
    cooldown_candles: int = 5
    outage_percent: int = 10


class RunStarted(DomainEvent):
    """Open a run: the log's first event, and all that ``--resume`` needs to know."""

    event_type: ClassVar[str] = "demo.run-started"
    tape: str
    simulated: bool
    kind: TapeKind
    rows: int
    row_limit: int | None
    fingerprint: str
    settings: Settings


class RunFinished(DomainEvent):
    """Close a run: everything was handled or parked."""

    event_type: ClassVar[str] = "demo.run-finished"
    result: str


class TickReceived(DomainEvent):
    """Report one trade of the market."""

    event_type: ClassVar[str] = "market.tick-received"
    aggregate_type: ClassVar[str] = "market"
    symbol: str
    sequence: int
    at: datetime
    price: Decimal
    quantity: Decimal
    side: Side

    @property
    def aggregate_id(self) -> str:
        """Return the symbol."""
        return self.symbol


class CandleClosed(DomainEvent):
    """Sum up the trades of one symbol in one interval."""

    event_type: ClassVar[str] = "market.candle-closed"
    aggregate_type: ClassVar[str] = "candles"
    symbol: str
    number: int
    opened_at: datetime
    seconds: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal

    @property
    def aggregate_id(self) -> str:
        """Return the symbol."""
        return self.symbol


class SignalRaised(DomainEvent):
    """Say that the strategy wants to buy or to sell."""

    event_type: ClassVar[str] = "strategy.signal-raised"
    aggregate_type: ClassVar[str] = "signals"
    symbol: str
    candle: int
    side: Side
    price: Decimal
    fast: Decimal
    slow: Decimal

    @property
    def aggregate_id(self) -> str:
        """Return the symbol."""
        return self.symbol


class OrderPlaced(DomainEvent):
    """Send an order that passed the risk check."""

    event_type: ClassVar[str] = "order.placed"
    aggregate_type: ClassVar[str] = "order"
    order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal

    @property
    def aggregate_id(self) -> str:
        """Return the order id."""
        return self.order_id


class OrderRejected(DomainEvent):
    """Refuse an order in the risk check, with the reason."""

    event_type: ClassVar[str] = "order.rejected"
    aggregate_type: ClassVar[str] = "order"
    order_id: str
    symbol: str
    side: Side
    price: Decimal
    reason: str

    @property
    def aggregate_id(self) -> str:
        """Return the order id."""
        return self.order_id


class OrderFilled(DomainEvent):
    """Report what the paper exchange made of an order."""

    event_type: ClassVar[str] = "order.filled"
    aggregate_type: ClassVar[str] = "order"
    order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal

    @property
    def aggregate_id(self) -> str:
        """Return the order id."""
        return self.order_id


class PositionChanged(DomainEvent):
    """Show a position after a fill."""

    event_type: ClassVar[str] = "position.changed"
    aggregate_type: ClassVar[str] = "position"
    symbol: str
    order_id: str
    fills: int
    quantity: Decimal
    average_price: Decimal
    realized: Decimal
    fees: Decimal

    @property
    def aggregate_id(self) -> str:
        """Return the symbol."""
        return self.symbol


WAY_OF_A_TICK: tuple[type[DomainEvent], ...] = (
    TickReceived,
    CandleClosed,
    SignalRaised,
    OrderPlaced,
    OrderRejected,
    OrderFilled,
    PositionChanged,
)
"""The events in the order in which one follows from the other."""
