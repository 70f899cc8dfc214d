"""The pure decisions of the trading application: candles, strategy, risk, exchange, positions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal

import pytest

from pabal.demo.candles import Candle, add_tick
from pabal.demo.errors import ExchangeUnavailableError, ImpossiblePriceError, OversoldError
from pabal.demo.events import (
    CandleClosed,
    OrderFilled,
    OrderPlaced,
    OrderRejected,
    Settings,
    Side,
    SignalRaised,
    TickReceived,
)
from pabal.demo.exchange import MAX_OUTAGE_ATTEMPTS, execute, is_unavailable
from pabal.demo.positions import Position, book
from pabal.demo.risk import Exposure, check
from pabal.demo.strategy import Trend, follow
from tests.demo.support import RUN, START, candle, order, tick

RULES = Settings(seed=7, candle_seconds=60, fast=2, slow=4)


def decimals(*values: object) -> list[Decimal]:
    return [Decimal(str(value)) for value in values]


# -- candles ----------------------------------------------------------------------------------------------


def candles_of(ticks: Iterable[TickReceived], seconds: int = 10) -> list[CandleClosed]:
    state: Candle | None = None
    closed = []
    for one in ticks:
        state, event = add_tick(state, one, seconds, RUN)
        if event is not None:
            closed.append(event)
    return closed


def test_a_candle_holds_first_highest_lowest_and_last_price_and_the_volume() -> None:
    """A high would be taken from the close, or the volume from one tick instead of all."""
    ticks = [tick(1, 100), tick(2, 130), tick(3, 90), tick(9.9, 110, quantity="0.5"), tick(10, 500)]
    (closed,) = candles_of(ticks)
    assert [closed.open, closed.high, closed.low, closed.close] == decimals(100, 130, 90, 110)
    assert closed.volume == Decimal("3.5")
    assert (closed.opened_at, closed.number) == (START, 1)


def test_the_tick_that_closes_a_candle_opens_the_next_one() -> None:
    """The first tick of an interval would be lost, or counted in the previous candle."""
    closed = candles_of([tick(1, 100), tick(11, 200), tick(21, 300)])
    assert [one.number for one in closed] == [1, 2]
    assert [one.open for one in closed] == decimals(100, 200)
    assert [one.volume for one in closed] == decimals(1, 1)


def test_an_interval_without_trades_yields_no_candle() -> None:
    """With invented candles, averages would include prices that nobody paid."""
    closed = candles_of([tick(1, 100), tick(55, 200), tick(61, 300)])
    assert [one.opened_at - START for one in closed] == [timedelta(0), timedelta(seconds=50)]
    assert [one.number for one in closed] == [1, 2]


def test_a_late_tick_does_not_reopen_a_closed_candle() -> None:
    """A candle would be published twice under one number with different content."""
    closed = candles_of([tick(1, 100), tick(11, 200), tick(9, 150), tick(21, 300)])
    assert [one.number for one in closed] == [1, 2]
    assert [one.low for one in closed] == decimals(100, 150)


@pytest.mark.parametrize(("price", "quantity"), [(-1, 1), (0, 1), (100, 0), (100, -1)])
def test_an_impossible_tick_is_rejected(price: int, quantity: int) -> None:
    """The poison event would be processed: a candle with a negative low."""
    with pytest.raises(ImpossiblePriceError, match="tick 5 of X"):
        add_tick(None, tick(1, price, 5, quantity=quantity), 10, RUN)


# -- strategy ---------------------------------------------------------------------------------------------


def signals_of(closes: Iterable[int], fast: int = 2, slow: int = 4) -> list[tuple[int, Side]]:
    trend = Trend()
    raised = []
    for number, close in enumerate(closes, 1):
        trend, signal = follow(trend, candle(number, close), fast, slow, RUN)
        if signal is not None:
            raised.append((signal.candle, signal.side))
    return raised


def test_a_signal_is_raised_only_when_the_averages_cross() -> None:
    """There would be a signal with every candle of a trend, or one for the initial side."""
    falling_rising_falling = [10, 9, 8, 7, 6, 10, 12, 13, 14, 9, 5, 4]
    assert signals_of(falling_rising_falling) == [(6, "buy"), (10, "sell")]


def test_no_signal_is_raised_before_the_slow_average_is_complete() -> None:
    """An average would cover fewer candles than its name says."""
    trend = Trend()
    for number in range(1, 4):
        trend, signal = follow(trend, candle(number, 100 * number), 2, 4, RUN)
        assert (signal, trend.fast_above) == (None, None)


def test_equal_averages_do_not_change_the_side() -> None:
    """A flat market would be read as crossings back and forth."""
    assert signals_of([10, 9, 8, 7, 7, 7, 7, 7, 6, 5]) == []


def test_a_signal_carries_the_averages_of_its_windows() -> None:
    """The windows would be off by one candle."""
    trend = Trend((Decimal(10), Decimal(9), Decimal(8)), fast_above=False)
    _, signal = follow(trend, candle(4, 20), 2, 4, RUN)
    assert signal is not None
    assert [signal.fast, signal.slow, signal.price] == decimals(14, "11.75", 20)


# -- risk -------------------------------------------------------------------------------------------------


def signal(side: Side, number: int, price: object = 100) -> SignalRaised:
    return SignalRaised("X", number, side, Decimal(str(price)), Decimal(1), Decimal(1))


def decided(signals: Iterable[SignalRaised], rules: Settings = RULES) -> list[OrderPlaced | OrderRejected]:
    exposure = Exposure()
    events = []
    for one in signals:
        exposure, event = check(exposure, one, rules, RUN)
        events.append(event)
    return events


def test_a_buy_has_the_configured_value_and_a_sell_closes_the_position() -> None:
    """With a sell of another size, the position would never return to zero."""
    bought, sold = decided([signal("buy", 1, "30000.7"), signal("sell", 9, "29000")])
    assert isinstance(bought, OrderPlaced)
    assert isinstance(sold, OrderPlaced)
    assert bought.quantity == sold.quantity == Decimal("0.333325")


def test_a_sell_without_a_position_is_rejected() -> None:
    """There would be a short position, which the position book does not support."""
    (event,) = decided([signal("sell", 1)])
    assert isinstance(event, OrderRejected)
    assert event.reason == "nothing is held"


def test_a_buy_soon_after_the_last_order_is_rejected_and_a_sell_is_not() -> None:
    """The limit would keep a loss open, or never apply."""
    events = decided([signal("buy", 10), signal("sell", 11), signal("buy", 15), signal("buy", 16)])
    assert [type(event) for event in events] == [OrderPlaced, OrderPlaced, OrderRejected, OrderPlaced]
    (_, event) = decided([signal("buy", 10), signal("buy", 11)])
    assert isinstance(event, OrderRejected)
    assert event.reason == "only 1 candle since the last order"


def test_the_exposure_never_exceeds_its_limit() -> None:
    """If orders counted only once they are filled, many could be pending at once."""
    events = decided([signal("buy", 10 * n) for n in range(1, 5)])
    assert [type(event) for event in events] == [OrderPlaced, OrderPlaced, OrderRejected, OrderRejected]


def test_a_signal_is_rejected_if_one_lot_is_too_expensive() -> None:
    """There would be an order of quantity zero."""
    (event,) = decided([signal("buy", 1, "1e12")])
    assert isinstance(event, OrderRejected)


# -- exchange ---------------------------------------------------------------------------------------------


def test_a_fill_is_never_better_than_the_order_and_depends_on_the_order_alone() -> None:
    """If a fill were drawn again after a crash, one order would be filled at two prices."""
    for number in range(50):
        side: Side = "buy" if number % 2 else "sell"
        placed = order(f"o-{number}", side)
        fill = execute(placed, MAX_OUTAGE_ATTEMPTS + 1, RULES, RUN)
        again = execute(placed, MAX_OUTAGE_ATTEMPTS + 2, RULES, RUN)
        assert (fill, fill.event_id) == (again, again.event_id)
        assert fill.price >= 100 if side == "buy" else fill.price <= 100
        assert abs(fill.price - 100) <= Decimal("0.03")


def test_the_exchange_fails_at_about_the_configured_rate_and_never_permanently() -> None:
    """Outages that outlast the attempts would lose orders, and different ones after each crash."""
    orders = [f"o-{number}" for number in range(1000)]
    refused = sum(is_unavailable(one, 1, RULES) for one in orders)
    assert 60 < refused < 140
    assert not any(is_unavailable(one, MAX_OUTAGE_ATTEMPTS + 1, RULES) for one in orders)
    with pytest.raises(ExchangeUnavailableError, match="unavailable for order"):
        execute(order(next(one for one in orders if is_unavailable(one, 1, RULES))), 1, RULES, RUN)


# -- positions --------------------------------------------------------------------------------------------


def fill(side: Side, quantity: object, price: object, fee: object = "0.5") -> OrderFilled:
    values = (Decimal(str(value)) for value in (quantity, price, fee))
    return OrderFilled("o", "X", side, *values)


def test_a_position_has_an_average_cost_and_realizes_profit_when_sold() -> None:
    """Profit would be computed against the last price paid instead of the average."""
    position = Position()
    for one in (fill("buy", 1, 100), fill("buy", 3, 120)):
        position, _ = book(position, one, RUN)
    position, changed = book(position, fill("sell", 2, 130), RUN)
    assert position == Position(3, Decimal(2), Decimal(115), Decimal(30), Decimal("1.5"))
    assert changed.fills == 3
    assert [changed.quantity, changed.average_price, changed.realized] == decimals(2, 115, 30)


def test_closing_a_position_resets_its_average_cost() -> None:
    """The next position would begin at the cost of the last."""
    position = Position()
    for one in (fill("buy", 1, 100), fill("sell", 1, 90), fill("buy", 1, 50)):
        position, _ = book(position, one, RUN)
    assert [position.average_price, position.realized] == decimals(50, -10)


def test_a_fill_that_sells_more_than_is_held_is_rejected() -> None:
    """There would be a negative position, which nothing else here supports."""
    with pytest.raises(OversoldError, match="sells 2 of X, but only 1"):
        book(Position(1, Decimal(1), Decimal(100)), fill("sell", 2, 100), RUN)
