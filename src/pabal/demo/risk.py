"""The risk check: which signals become orders, and how large."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

import msgspec

from pabal.demo.events import OrderPlaced, OrderRejected, Settings, SignalRaised, derived_id
from pabal.domain.counting import counted

_LOT = Decimal("0.000001")


class Exposure(msgspec.Struct, frozen=True, gc=False):
    """What one symbol would amount to if every order placed so far were filled.

    The check is based on orders, not on fills: when a fill arrives depends on the exchange's outages, so a
    decision based on it could not be repeated with the same result.
    """

    quantity: Decimal = Decimal(0)
    last_order_candle: int | None = None


def check(
    exposure: Exposure, signal: SignalRaised, rules: Settings, run: str
) -> tuple[Exposure, OrderPlaced | OrderRejected]:
    """Return the exposure after a signal, and the order or its rejection.

    A buy is worth ``order_value``, keeps the exposure within its limit, and comes at least
    ``cooldown_candles`` after the last order. A sell closes what is held, at any time.
    """
    order_id = f"{signal.symbol}-{signal.candle}"
    event_id = derived_id(run, "order", order_id)
    quantity, reason = _size(exposure, signal, rules)
    if reason:
        rejected = OrderRejected(
            order_id, signal.symbol, signal.side, signal.price, reason, event_id=event_id
        )
        return exposure, rejected
    placed = OrderPlaced(order_id, signal.symbol, signal.side, quantity, signal.price, event_id=event_id)
    change = quantity if signal.side == "buy" else -quantity
    return Exposure(exposure.quantity + change, signal.candle), placed


def _size(exposure: Exposure, signal: SignalRaised, rules: Settings) -> tuple[Decimal, str]:
    """Return the quantity to trade, or the reason not to trade."""
    if signal.side == "sell":
        return exposure.quantity, "" if exposure.quantity > 0 else "nothing is held"
    last = exposure.last_order_candle
    if last is not None and signal.candle - last < rules.cooldown_candles:
        return Decimal(0), f"only {counted(signal.candle - last, 'candle')} since the last order"
    quantity = (rules.order_value / signal.price).quantize(_LOT, rounding=ROUND_DOWN)
    if quantity == 0:
        return quantity, "one lot costs more than an order may"
    if (exposure.quantity + quantity) * signal.price > rules.exposure_limit:
        return Decimal(0), f"the exposure would pass {rules.exposure_limit}"
    return quantity, ""
