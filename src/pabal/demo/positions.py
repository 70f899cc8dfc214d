"""The position book: what is held, what it cost, and the profit realized."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from pabal.demo.errors import OversoldError
from pabal.demo.events import OrderFilled, PositionChanged, derived_id

_STEP = Decimal("0.00000001")


class Position(msgspec.Struct, frozen=True, gc=False):
    """The position in one symbol; ``realized`` is before fees."""

    fills: int = 0
    quantity: Decimal = Decimal(0)
    average_price: Decimal = Decimal(0)
    realized: Decimal = Decimal(0)
    fees: Decimal = Decimal(0)


def book(position: Position, fill: OrderFilled, run: str) -> tuple[Position, PositionChanged]:
    """Return the position after a fill, at average cost. Raises OversoldError."""
    quantity, average, realized = position.quantity, position.average_price, position.realized
    if fill.side == "buy":
        cost = quantity * average + fill.quantity * fill.price
        quantity += fill.quantity
        average = (cost / quantity).quantize(_STEP)
    else:
        if fill.quantity > quantity:
            raise OversoldError(symbol=fill.symbol, held=quantity, sold=fill.quantity)
        realized = (realized + fill.quantity * (fill.price - average)).quantize(_STEP)
        quantity -= fill.quantity
        if quantity == 0:
            average = Decimal(0)
    new_position = Position(position.fills + 1, quantity, average, realized, position.fees + fill.fee)
    changed = PositionChanged(
        fill.symbol,
        fill.order_id,
        new_position.fills,
        new_position.quantity,
        new_position.average_price,
        new_position.realized,
        new_position.fees,
        event_id=derived_id(run, "position", fill.symbol, new_position.fills),
    )
    return new_position, changed
