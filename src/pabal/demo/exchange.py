"""The paper exchange: fills every order, but is sometimes unavailable."""

from __future__ import annotations

from decimal import Decimal
from hashlib import sha256

from pabal.demo.errors import ExchangeUnavailableError
from pabal.demo.events import OrderFilled, OrderPlaced, Settings, derived_id

MAX_OUTAGE_ATTEMPTS = 3
"""The most attempts that fail for one order; it is retried more often, so an outage only delays it."""

_FEE = Decimal("0.0004")
_MAX_SLIPPAGE = 3
_BASIS_POINT = Decimal("0.0001")
_FEE_STEP = Decimal("0.00000001")


def execute(order: OrderPlaced, attempt: int, rules: Settings, run: str) -> OrderFilled:
    """Return the fill of an order, at a price up to a few basis points worse than asked for.

    Which attempts fail, and how far the price slips, depends only on the seed and the order, so a run can be
    repeated. Raises ExchangeUnavailableError.
    """
    if is_unavailable(order.order_id, attempt, rules):
        raise ExchangeUnavailableError(order_id=order.order_id, attempt=attempt)
    slip = _pseudo_random(rules.seed, order.order_id, "slippage") % (_MAX_SLIPPAGE + 1) * _BASIS_POINT
    price = order.price * (1 + slip if order.side == "buy" else 1 - slip)
    fee = (price * order.quantity * _FEE).quantize(_FEE_STEP)
    return OrderFilled(
        order.order_id,
        order.symbol,
        order.side,
        order.quantity,
        price,
        fee,
        event_id=derived_id(run, "fill", order.order_id),
    )


def is_unavailable(order_id: str, attempt: int, rules: Settings) -> bool:
    """Return whether the exchange refuses an attempt (from 1) on an order."""
    return (
        attempt <= MAX_OUTAGE_ATTEMPTS
        and _pseudo_random(rules.seed, order_id, attempt) % 100 < rules.outage_percent
    )


def _pseudo_random(*parts: object) -> int:
    """Return a pseudo-random number that depends only on ``parts``."""
    return int.from_bytes(sha256("/".join(map(str, parts)).encode()).digest()[:8], "big")
