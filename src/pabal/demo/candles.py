"""Build candles from ticks."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from pabal.demo.errors import ImpossiblePriceError
from pabal.demo.events import CandleClosed, TickReceived, derived_id


class Candle(msgspec.Struct, frozen=True, gc=False):
    """The open candle of one symbol; ``number`` counts its candles from 1."""

    number: int
    opened_at: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


def add_tick(
    candle: Candle | None, tick: TickReceived, seconds: int, run: str
) -> tuple[Candle, CandleClosed | None]:
    """Return the candle that includes ``tick``, and the previous one if the tick closed it.

    An interval without trades has no candle. A late tick counts towards the open candle, because a closed
    candle is never reopened. Raises ImpossiblePriceError for a price or quantity not above zero.
    """
    if tick.price <= 0 or tick.quantity <= 0:
        raise ImpossiblePriceError(
            f"tick {tick.sequence} of {tick.symbol} cannot be true: "
            f"price {tick.price}, quantity {tick.quantity}"
        )
    price = tick.price
    opened_at = interval_of(tick.at, seconds)
    if candle is None or opened_at > candle.opened_at:
        number = 1 if candle is None else candle.number + 1
        new_candle = Candle(number, opened_at, price, price, price, price, tick.quantity)
        return new_candle, None if candle is None else close(candle, tick.symbol, seconds, run)
    updated_candle = Candle(
        candle.number,
        candle.opened_at,
        candle.open,
        max(candle.high, price),
        min(candle.low, price),
        price,
        candle.volume + tick.quantity,
    )
    return updated_candle, None


def interval_of(moment: datetime, seconds: int) -> datetime:
    """Return the start of the interval of ``seconds`` (counted from 1970) that contains ``moment``."""
    timestamp = int(moment.timestamp())
    return datetime.fromtimestamp(timestamp - timestamp % seconds, UTC)


def close(candle: Candle, symbol: str, seconds: int, run: str) -> CandleClosed:
    """Return the event for a completed candle."""
    return CandleClosed(
        symbol,
        candle.number,
        candle.opened_at,
        seconds,
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.volume,
        event_id=derived_id(run, "candle", symbol, candle.number),
    )
