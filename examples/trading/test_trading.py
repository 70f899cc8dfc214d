"""The tests of the trading application."""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from examples.trading import __main__ as program
from examples.trading.__main__ import trade
from examples.trading.application.fulfilment import Fulfilment
from examples.trading.application.messages import GetOrderBook, GetPortfolio, Holding, PlaceOrder
from examples.trading.domain.events import (
    OrderCancelled,
    OrderFilled,
    OrderPlaced,
    OrderSettled,
    PositionChanged,
)
from examples.trading.domain.order import Order, OrderError
from examples.trading.domain.position import NotHeldError, Position
from examples.trading.infrastructure.app import TradingApplication
from pabal.demo.tape import simulate_tape
from pabal.errors import InvalidMessageError
from pabal.testing import VirtualClock, given

ONE, LIMIT = Decimal(1), Decimal(100)
PLACED = OrderPlaced("o-1", "KRW-BTC", "buy", ONE, LIMIT)


def test_an_order_is_filled_only_within_its_limit() -> None:
    """A customer would pay more than allowed."""
    given(Order, PLACED).when(lambda order: order.fill(Decimal(99))).then(
        OrderFilled("o-1", "KRW-BTC", "buy", ONE, Decimal(99))
    )
    given(Order, PLACED).when(lambda order: order.fill(Decimal(101))).then_raises(OrderError, "worse")
    given(Order, PLACED, OrderSettled("o-1")).when(lambda order: order.cancel("late")).then_raises(OrderError)


def test_a_sale_larger_than_the_position_is_rejected() -> None:
    """The application would sell what it does not have."""
    given(Position, PositionChanged("KRW-BTC", "o-1", ONE, -LIMIT)).when(
        lambda position: position.trade("o-2", "sell", ONE, LIMIT)
    ).then(PositionChanged("KRW-BTC", "o-2", -ONE, LIMIT))
    given(Position, aggregate_id="KRW-BTC").when(
        lambda position: position.trade("o-2", "sell", ONE, LIMIT)
    ).then_raises(NotHeldError)


async def test_a_filled_buy_order_is_settled_in_the_portfolio(tmp_path: Path) -> None:
    """An order would be filled and never settled."""
    async with TradingApplication(tmp_path / "trading.db") as app:
        command = PlaceOrder("o-1", "KRW-BTC", "buy", ONE, LIMIT)
        for _ in range(2):  # the second time has the same command id, and places nothing
            assert await app.commands.execute(command) == "o-1"
        await app.up_to_date()
        assert await app.price_seen("KRW-BTC", Decimal(101)) == 0
        assert len(await app.queries.ask(GetOrderBook())) == 1
        assert await app.price_seen("KRW-BTC", Decimal(99)) == 1
        await app.up_to_date()
        assert await app.queries.ask(GetOrderBook("KRW-BTC")) == []
        assert await app.queries.ask(GetPortfolio()) == [Holding("KRW-BTC", ONE, Decimal(-99))]
        process = await app.processes.load(Fulfilment, "o-1")
        assert process is not None
        assert process.ended


async def test_a_sale_of_a_symbol_not_held_is_cancelled(tmp_path: Path) -> None:
    """A fill that cannot be settled would stay open forever, or make the position negative."""
    async with TradingApplication(tmp_path / "trading.db") as app:
        await app.commands.execute(PlaceOrder("o-1", "KRW-BTC", "sell", ONE, LIMIT))
        await app.up_to_date()
        assert await app.price_seen("KRW-BTC", LIMIT) == 1
        await app.up_to_date()
        assert await app.queries.ask(GetPortfolio()) == []
        events = await app.storage.get_events_by_aggregate("o-1", "trading_order")
        assert isinstance(events[-1], OrderCancelled)
        assert "cannot be sold" in events[-1].reason


async def test_an_order_that_waits_too_long_is_cancelled(tmp_path: Path) -> None:
    """Yesterday's orders would be filled at today's prices."""
    clock = VirtualClock()
    async with TradingApplication(tmp_path / "trading.db", clock=clock) as app:
        await app.commands.execute(PlaceOrder("o-1", "KRW-BTC", "buy", ONE, LIMIT))
        await app.up_to_date()
        await clock.advance(Fulfilment.patience + 1)
        async with asyncio.timeout(30):
            while await app.queries.ask(GetOrderBook()):
                await clock.settle()
        await app.up_to_date()
        process = await app.processes.load(Fulfilment, "o-1")
        assert process is not None
        assert process.ended


async def test_an_invalid_order_is_rejected_and_nothing_is_stored(tmp_path: Path) -> None:
    """Invalid commands of a client would be stored."""
    async with TradingApplication(tmp_path / "trading.db") as app:
        with pytest.raises(InvalidMessageError, match="an id and a symbol"):
            await app.commands.execute(PlaceOrder("", "KRW-BTC", "buy", ONE, LIMIT))
        with pytest.raises(OrderError, match="above zero"):
            await app.commands.execute(PlaceOrder("o-1", "KRW-BTC", "buy", Decimal(0), LIMIT))
        assert await app.storage.head() == 0


async def test_a_second_run_on_the_same_file_succeeds(tmp_path: Path) -> None:
    """The second run would end with an OrderError, because an order of the first has the same id."""
    for _ in range(2):
        await trade(simulate_tape(7, 20), tmp_path / "trading.db", every=5)


async def test_the_program_prints_the_outcome_of_a_tape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that demonstrates the application would fail."""
    await trade(simulate_tape(7, 20), tmp_path / "trading.db", every=5)
    shown = capsys.readouterr().out
    assert "orders wait for the market" in shown
    assert "symbol" in shown


def test_an_interrupted_run_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who tries the example and stops it would see a traceback of sixty lines."""

    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "trade", interrupted)
    monkeypatch.setattr(sys, "argv", ["trading"])
    with pytest.raises(SystemExit) as exit_info:
        program.main()
    assert exit_info.value.code == 130


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tape", "trades.csv"], "trades.csv: No such file"),
        (["--file", "nowhere/trading.db"], "trading.db: "),
        (["--every", "0"], "1 or more"),
    ],
)
def test_invalid_options_exit_with_a_one_line_error(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A user who runs the README's second command without having such a tape would get a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["trading", *options])
    with pytest.raises(SystemExit) as exit_info:
        program.main()
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err
