"""A log written by the demo, and a bus on it whose mail server is down: something to fix in a browser."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

from pabal import InMemoryEventBus, RetryPolicy, SqliteEventStorage
from pabal.dashboard import create_dashboard
from pabal.demo.events import CandleClosed, OrderFilled, OrderPlaced
from pabal.eventsourcing import Projection, ProjectionTransaction, projects

DEMO_TIMEOUT = 240


class MailServerDownError(Exception):
    """The mail server does not answer."""


class Fills(Projection):
    """The quantities bought and sold, and their prices."""

    tables = (
        "CREATE TABLE {fills} (order_id TEXT PRIMARY KEY, symbol TEXT NOT NULL, price TEXT NOT NULL);"
        "CREATE TABLE {fees} (symbol TEXT PRIMARY KEY, fee REAL NOT NULL)"
    )

    @projects(OrderFilled)
    def _filled(self, event: OrderFilled, tx: ProjectionTransaction) -> None:
        tx.execute("INSERT INTO {fills} VALUES (?, ?, ?)", (event.order_id, event.symbol, str(event.price)))
        tx.execute(
            "INSERT INTO {fees} VALUES (?, ?) ON CONFLICT (symbol) DO UPDATE SET fee = fee + excluded.fee",
            (event.symbol, float(event.fee)),
        )


class LastCandles(Projection):
    """The last candle of each market."""

    version = 2
    tables = "CREATE TABLE {last_candles} (symbol TEXT PRIMARY KEY, number INTEGER, close TEXT NOT NULL)"

    @projects(CandleClosed)
    def _closed(self, event: CandleClosed, tx: ProjectionTransaction) -> None:
        tx.execute(
            "INSERT OR REPLACE INTO {last_candles} VALUES (?, ?, ?)",
            (event.symbol, event.number, str(event.close)),
        )


class Stage:
    """Own a bus on the demo's log, and the dashboard for it, in whatever event loop serves them."""

    def __init__(self, file: Path, **options: Any) -> None:
        self._file = file
        self._options = {"allow_actions": True, **options}
        self.fixed = False
        self.mailed = 0
        self.bus: InMemoryEventBus | None = None

    async def mail(self, event: OrderFilled) -> None:
        await asyncio.sleep(0.001)
        if event.symbol.endswith("ETH") and not self.fixed:
            raise MailServerDownError(f"mail.example.com:25 refused the connection, order {event.order_id}")
        self.mailed += 1

    async def settle(self, event: OrderPlaced) -> None:
        if event.order_id.endswith("7") and event.quantity > Decimal("0.001"):
            raise ValueError(
                f"{event.order_id}: the clearing house takes {event.quantity} in whole lots only"
            )

    @contextmanager
    def app(self) -> Iterator[Starlette]:
        """Yield an application for ``served``; the bus starts and stops with it."""
        storage = SqliteEventStorage(self._file, durability="normal")
        self.bus = bus = InMemoryEventBus(event_storage=storage)
        once: dict[str, Any] = {"start": "beginning", "retry": RetryPolicy(max_attempts=2, base_delay=0.05)}
        bus.subscribe(OrderFilled, self.mail, name="mail", **once)
        bus.subscribe(OrderPlaced, self.settle, name="clearing", **once)
        dashboard = create_dashboard(bus, **self._options)

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            async with bus, Fills(bus), LastCandles(bus):
                yield

        yield Starlette(routes=[Mount("/", dashboard)], lifespan=lifespan)
        storage.close()


def play_demo(file: Path, *, events: int, speed: int | None = None) -> None:
    """Have the demo write a log."""
    command = [sys.executable, "-m", "pabal", "demo", "--plain", "--new", "--file", str(file)]
    command += ["--events", str(events), "--durability", "normal"]
    command += ["--speed", "max" if speed is None else str(speed)]
    subprocess.run(command, check=True, timeout=DEMO_TIMEOUT, stdout=subprocess.DEVNULL)
