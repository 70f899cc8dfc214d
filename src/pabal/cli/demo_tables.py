"""The words and tables that the demo's live view and its summary share."""

from __future__ import annotations

from decimal import Decimal

from rich.table import Table
from rich.text import Text

from pabal.cli.language import t
from pabal.cli.speaking import spoken
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
"""What events are called on the screen, in the order in which one follows from the other."""

READS = {
    "candles": "ticks",
    "strategy": "candles",
    "risk": "signals",
    "exchange": "orders",
    "positions": "fills",
    "portfolio": "positions, candles",
}


def seconds(at: float, width: int = 0) -> str:
    """Return a time of the run, aligned to the right of ``width`` places before its unit."""
    return t("{seconds} s", seconds=f"{at:{width}.1f}")


def error_line(text: str) -> str:
    """Return ``name: error`` with the error in the language spoken."""
    name, colon, error = text.partition(": ")
    return f"{name}{colon}{spoken(error)}" if colon else spoken(text)


def money(value: Decimal) -> str:
    """Return an amount with its sign and two decimals."""
    return f"{value:+,.2f}"


def table(*columns: str, left: int) -> Table:
    """Return an empty table without lines, whose first ``left`` columns are text and the others numbers."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for number, name in enumerate(columns):
        made.add_column(t(name), justify="left" if number < left else "right", no_wrap=True)
    return made


def holdings_table(holdings: tuple[Holding, ...]) -> Table:
    """Return positions with what they earned."""
    made = table("symbol", "fills", "held", "average price", "last price", "profit (paper money)", left=1)
    for one in holdings:
        made.add_row(
            Text(one.symbol),
            Text(f"{one.fills:,}"),
            Text(f"{one.quantity.normalize():f}"),
            Text(f"{one.average_price:,.2f}" if one.quantity else "-"),
            Text("-" if one.last_price is None else f"{one.last_price:,.2f}"),
            Text(money(one.profit), style="green" if one.profit >= 0 else "red"),
        )
    return made
