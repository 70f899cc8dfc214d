"""Names and tables shared by the demo's live view and its summary."""

from __future__ import annotations

from decimal import Decimal

from rich.table import Table
from rich.text import Text

from pabal.cli.language import t
from pabal.cli.translation import translate
from pabal.demo.portfolio import Holding

NAMES = {
    "market.tick-received": "ticks",
    "market.candle-closed": "candles",
    "strategy.signal-raised": "signals",
    "order.placed": "orders",
    "order.rejected": "rejected",
    "order.filled": "fills",
    "position.changed": "positions",
}
"""The names of events on the screen, in the order in which one leads to the next."""

READS = {
    "candles": "ticks",
    "strategy": "candles",
    "risk": "signals",
    "exchange": "orders",
    "positions": "fills",
    "portfolio": "positions, candles",
}


def seconds(at: float, width: int = 0) -> str:
    """Format a time of the run, with the number right-aligned to ``width`` places."""
    return t("{seconds} s", seconds=f"{at:{width}.1f}")


def error_line(text: str) -> str:
    """Return ``name: error`` with the error translated."""
    name, colon, error = text.partition(": ")
    return f"{name}{colon}{translate(error)}" if colon else translate(text)


def money(value: Decimal) -> str:
    """Format an amount with its sign and two decimals."""
    return f"{value:+,.2f}"


def table(*columns: str, left: int) -> Table:
    """Return an empty table without lines; its first ``left`` columns are text, the others numbers."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for number, name in enumerate(columns):
        made.add_column(t(name), justify="left" if number < left else "right", no_wrap=True)
    return made


def holdings_table(holdings: tuple[Holding, ...]) -> Table:
    """Return a table of positions and their profit."""
    new_table = table(
        "symbol", "fills", "held", "average price", "last price", "profit (paper money)", left=1
    )
    for one in holdings:
        new_table.add_row(
            Text(one.symbol),
            Text(f"{one.fills:,}"),
            Text(f"{one.quantity.normalize():f}"),
            Text(f"{one.average_price:,.2f}" if one.quantity else "-"),
            Text("-" if one.last_price is None else f"{one.last_price:,.2f}"),
            Text(money(one.profit), style="green" if one.profit >= 0 else "red"),
        )
    return new_table
