"""The events of the trading application."""

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
    """Return an event id derived from ``parts``, always the same for the same parts.

    Delivery is at least once: after a crash a handler may run again. The event that it publishes then has the
    same id and content as the first time, so the log keeps only one.

    >>> derived_id("run-1", "fill", "order-7") == derived_id("run-1", "fill", "order-7")
    True
    """
    return str(uuid5(_NAMESPACE, "/".join(map(str, parts))))


class Settings(msgspec.Struct, frozen=True):
    """Everything besides the tape that determines the result of a run."""

    seed: int
    candle_seconds: int
    fast: int
    slow: int
    order_value: Decimal = Decimal(10_000)
    exposure_limit: Decimal = Decimal(25_000)
    cooldown_candles: int = 5
    outage_percent: int = 10


class RunStarted(DomainEvent):
    """A run started. This is the log's first event, and holds all that ``--resume`` needs."""

    event_type: ClassVar[str] = "demo.run-started"
    tape: str
    simulated: bool
    kind: TapeKind
    rows: int
    row_limit: int | None
    fingerprint: str
    settings: Settings


class RunFinished(DomainEvent):
    """A run finished: every event was handled or parked."""

    event_type: ClassVar[str] = "demo.run-finished"
    result: str


class TickReceived(DomainEvent):
    """A trade took place on the market."""

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
    """An interval ended; this sums up the trades of one symbol in it."""

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
    """The strategy wants to buy or to sell."""

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
    """An order passed the risk check."""

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
    """The risk check refused an order, for the given reason."""

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
    """The paper exchange filled an order."""

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
    """A fill changed a position."""

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


EVENT_FLOW: tuple[type[DomainEvent], ...] = (
    TickReceived,
    CandleClosed,
    SignalRaised,
    OrderPlaced,
    OrderRejected,
    OrderFilled,
    PositionChanged,
)
"""The event types, in the order in which one leads to the next."""
