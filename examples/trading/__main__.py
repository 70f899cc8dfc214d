"""Run the application over a tape of prices: ``python -m examples.trading``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from examples.trading.application.messages import GetOrderBook, GetPortfolio, PlaceOrder
from examples.trading.domain.events import Side
from examples.trading.infrastructure.app import TradingApplication
from pabal.demo.errors import TapeError
from pabal.demo.tape import Tape, Trade, read_tape, simulate_tape
from pabal.errors import StorageError


def prices(tape: Tape) -> Iterator[tuple[str, Decimal]]:
    """Yield symbols and prices: those of trades, or the closing prices of candles."""
    for row in tape.rows:
        yield row.symbol, row.price if isinstance(row, Trade) else row.close


async def trade(tape: Tape, path: Path, every: int) -> None:
    """Buy and sell in turn, slightly better than the current price, and print the result."""
    async with TradingApplication(path) as app:
        # The file may hold orders of an earlier run; make the ids of this one's differ.
        run = await app.storage.head()
        for number, (symbol, price) in enumerate(prices(tape)):
            await app.price_seen(symbol, price)
            if number % every == 0:
                side: Side = "sell" if number // every % 3 == 2 else "buy"
                limit = price * (Decimal("0.9995") if side == "buy" else Decimal("1.0005"))
                await app.commands.execute(
                    PlaceOrder(
                        f"order-{run}-{number}", symbol, side, Decimal(1), limit.quantize(Decimal("0.01"))
                    )
                )
                await app.up_to_date()
        await app.up_to_date()
        print(f"{'symbol':<12}{'held':>10}{'cash':>20}")
        for holding in await app.queries.ask(GetPortfolio()):
            print(f"{holding.symbol:<12}{holding.quantity:>10}{holding.cash:>20,.2f}")
        print(f"{len(await app.queries.ask(GetOrderBook()))} orders wait for the market")
        statistics = await app.storage.get_event_statistics()
        print(f"{statistics['total_events']:,} events")


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m examples.trading", description=__doc__)
    parser.add_argument("--tape", type=Path, help="a CSV file of trades or candles; simulated by default")
    parser.add_argument("--prices", type=int, default=500, help="how many prices to use (500)")
    parser.add_argument("--every", type=int, default=10, help="place an order every so many prices (10)")
    parser.add_argument("--file", type=Path, help="keep the log in this file")
    options = parser.parse_args()
    if options.prices < 1 or options.every < 1:
        parser.error("--prices and --every are 1 or more")
    try:
        tape = read_tape(options.tape, options.prices) if options.tape else simulate_tape(7, options.prices)
        with tempfile.TemporaryDirectory(prefix="pabal-trading-") as folder:
            asyncio.run(trade(tape, options.file or Path(folder) / "trading.db", options.every))
    except (TapeError, StorageError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
