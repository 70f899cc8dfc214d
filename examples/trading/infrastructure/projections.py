"""Read models in SQLite tables: the portfolio, and the book of open orders."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from examples.trading.application.messages import GetOrderBook, GetPortfolio, Holding, OpenOrder
from examples.trading.domain.events import OrderCancelled, OrderFilled, OrderPlaced, PositionChanged
from pabal.cqrs import QueryBus
from pabal.eventsourcing import Projection, projects


class Portfolio(Projection):
    """Sum up what is held. Amounts are stored as text, because SQLite's numbers are not exact decimals."""

    name = "trading_portfolio"
    tables = "CREATE TABLE {trading_portfolio} (symbol TEXT PRIMARY KEY, quantity TEXT, cash TEXT)"

    @projects(PositionChanged)
    def changed(self, event: PositionChanged, tx: Any) -> None:
        """Add a change to its symbol's row."""
        row = tx.execute(
            "SELECT quantity, cash FROM {trading_portfolio} WHERE symbol = ?", (event.symbol,)
        ).fetchone()
        quantity, cash = (Decimal(row[0]), Decimal(row[1])) if row else (Decimal(0), Decimal(0))
        tx.execute(
            "INSERT OR REPLACE INTO {trading_portfolio} VALUES (?, ?, ?)",
            (event.symbol, str(quantity + event.change), str(cash + event.cash)),
        )


class OrderBook(Projection):
    """Keep the orders that wait for the market."""

    name = "trading_order_book"
    tables = (
        "CREATE TABLE {trading_order_book} "
        "(order_id TEXT PRIMARY KEY, symbol TEXT, side TEXT, quantity TEXT, price_limit TEXT)"
    )

    @projects(OrderPlaced)
    def placed(self, event: OrderPlaced, tx: Any) -> None:
        """Add an order."""
        tx.execute(
            "INSERT INTO {trading_order_book} VALUES (?, ?, ?, ?, ?)",
            (event.order_id, event.symbol, event.side, str(event.quantity), str(event.limit)),
        )

    @projects(OrderFilled, OrderCancelled)
    def gone(self, event: OrderFilled | OrderCancelled, tx: Any) -> None:
        """Remove an order."""
        tx.execute("DELETE FROM {trading_order_book} WHERE order_id = ?", (event.order_id,))


async def portfolio_of(query: GetPortfolio, portfolio: Portfolio) -> list[Holding]:
    """Answer the query from the table."""
    rows = await portfolio.rows("SELECT symbol, quantity, cash FROM {trading_portfolio} ORDER BY symbol")
    return [Holding(symbol, Decimal(quantity), Decimal(cash)) for symbol, quantity, cash in rows]


async def order_book_of(query: GetOrderBook, book: OrderBook) -> list[OpenOrder]:
    """Answer the query from the table."""
    rows = await book.rows(
        "SELECT order_id, symbol, side, quantity, price_limit FROM {trading_order_book} "
        "WHERE ? IS NULL OR symbol = ? ORDER BY rowid",
        (query.symbol, query.symbol),
    )
    return [OpenOrder(row[0], row[1], row[2], Decimal(row[3]), Decimal(row[4])) for row in rows]


def register(queries: QueryBus) -> None:
    """Register the handler of each query."""
    queries.register(GetPortfolio, portfolio_of)
    queries.register(GetOrderBook, order_book_of)
