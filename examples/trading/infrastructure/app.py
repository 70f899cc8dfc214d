"""Assemble the application: the one module that knows all parts."""

from __future__ import annotations

from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from examples.trading.application import handlers
from examples.trading.application.fulfilment import Fulfilment
from examples.trading.application.messages import FillOrder, GetOrderBook
from examples.trading.domain.order import Order, OrderError
from examples.trading.domain.position import Position
from examples.trading.infrastructure import projections
from examples.trading.infrastructure.projections import OrderBook, Portfolio
from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.cqrs import CommandBus, Idempotency, ProcessManagers, QueryBus, retry_conflicts, validate
from pabal.eventsourcing import Repository
from pabal.integrations.progress import show_progress
from pabal.ports.clock import Clock


class TradingApplication:
    """The trading application on one SQLite file; use it with ``async with``."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self.storage = SqliteEventStorage(path)
        self.bus = InMemoryEventBus(self.storage, clock=clock)
        self.portfolio, self.order_book = Portfolio(self.bus), OrderBook(self.bus)
        services: dict[Any, Any] = {
            handlers.Orders: Repository(Order, self.bus),
            handlers.Positions: Repository(Position, self.bus),
            Portfolio: self.portfolio,
            OrderBook: self.order_book,
        }
        self.commands = CommandBus(provide=services.__getitem__)
        for middleware in (validate(), retry_conflicts(attempts=10), Idempotency(self.bus)):
            self.commands.use(middleware)
        handlers.register(self.commands)
        self.queries = QueryBus(provide=services.__getitem__)
        projections.register(self.queries)
        self.processes = ProcessManagers(self.bus, self.commands, clock=clock)
        self.processes.add(Fulfilment, start="beginning")
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start all parts."""
        for part in (self.storage, self.bus):
            await self._open.enter_async_context(part)
        for projection in (self.portfolio, self.order_book):
            # A new version is first built from the whole log; show the progress meanwhile.
            with show_progress(projection.name) as progress:
                await projection.start(progress=progress)
            self._open.push_async_callback(projection.stop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all parts; unfinished work continues at the next start."""
        await self._open.__aexit__(kind, error, trace)

    async def price_seen(self, symbol: str, price: Decimal) -> int:
        """Fill every open order whose limit the price meets; return how many."""
        filled = 0
        for order in await self.queries.ask(GetOrderBook(symbol)):
            if price <= order.limit if order.side == "buy" else price >= order.limit:
                try:
                    await self.commands.execute(FillOrder(order.order_id, price))
                    filled += 1
                except OrderError:
                    continue  # cancelled or filled since the order book was last updated
        return filled

    async def up_to_date(self) -> None:
        """Return when everything stored so far was handled, and the read models include it."""
        before = -1
        while before != (head := await self.storage.head()):
            before = head
            await self.bus.drain(timeout=30)
            for projection in (self.portfolio, self.order_book):
                await projection.reached(head, timeout=30)
