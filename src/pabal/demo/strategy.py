"""The strategy: buy when the fast moving average crosses above the slow one, sell when it crosses below."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from pabal.demo.errors import ImpossiblePriceError
from pabal.demo.events import CandleClosed, SignalRaised, derived_id

_CENTS = Decimal("0.00000001")


class Trend(msgspec.Struct, frozen=True, gc=False):
    """The strategy's state for one symbol: the last closes, and whether the fast average was above."""

    closes: tuple[Decimal, ...] = ()
    fast_above: bool | None = None


def follow(
    trend: Trend, candle: CandleClosed, fast: int, slow: int, run: str
) -> tuple[Trend, SignalRaised | None]:
    """Return the trend after a candle, and a signal if the averages crossed.

    The first comparison only records which average is above; equal averages change nothing. Raises
    ImpossiblePriceError for a candle whose prices contradict each other.
    """
    lowest, highest = min(candle.open, candle.close), max(candle.open, candle.close)
    if not 0 < candle.low <= lowest <= highest <= candle.high:
        raise ImpossiblePriceError(
            f"candle {candle.number} of {candle.symbol} cannot be true: high {candle.high}, low {candle.low}"
        )
    closes = (*trend.closes[-(slow - 1) :], candle.close)
    if len(closes) < slow:
        return Trend(closes), None
    fast_average = (sum(closes[-fast:], Decimal(0)) / fast).quantize(_CENTS)
    slow_average = (sum(closes, Decimal(0)) / slow).quantize(_CENTS)
    if fast_average == slow_average:
        return Trend(closes, trend.fast_above), None
    above = fast_average > slow_average
    new_trend = Trend(closes, above)
    if trend.fast_above is None or above == trend.fast_above:
        return new_trend, None
    signal = SignalRaised(
        candle.symbol,
        candle.number,
        "buy" if above else "sell",
        candle.close,
        fast_average,
        slow_average,
        event_id=derived_id(run, "signal", candle.symbol, candle.number),
    )
    return new_trend, signal
