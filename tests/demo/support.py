"""Shared by the demo's tests: tapes, runs in this process and in children, and the outcome of a log."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from pabal import SqliteEventStorage
from pabal.demo.app import TradingDemo
from pabal.demo.events import CandleClosed, OrderPlaced, Side, TickReceived
from pabal.demo.report import Summary
from pabal.demo.runs import RESULT_EVENTS, find_run, plan, tape_of
from pabal.demo.tape import Tape
from tests import warm

RUN = "run"
START = datetime(2021, 1, 1, tzinfo=UTC)
SHARED = Path(__file__).parents[3] / "shared" / "data"
LIMIT = 60.0
"""Seconds after which a child process counts as stuck."""


def tick(
    seconds: float, price: object, sequence: int = 1, symbol: str = "X", quantity: object = 1
) -> TickReceived:
    return TickReceived(
        symbol,
        sequence,
        START + timedelta(seconds=seconds),
        Decimal(str(price)),
        Decimal(str(quantity)),
        "buy",
    )


def candle(number: int, close: object, symbol: str = "X") -> CandleClosed:
    price = Decimal(str(close))
    return CandleClosed(symbol, number, START, 60, price, price, price, price, Decimal(1))


def order(order_id: str, side: Side = "buy", quantity: object = 1, price: object = 100) -> OrderPlaced:
    return OrderPlaced(order_id, "X", side, Decimal(str(quantity)), Decimal(str(price)))


def write_candles(path: Path, rows: int, seed: int = 3) -> Path:
    """Write a tape of candles whose prices move enough for trades."""
    draw = random.Random(seed).random
    lines = ["timestamp,open,high,low,close,volume"]
    price = 40_000
    for number in range(rows):
        opened, price = price, price + int((draw() - 0.5) * 200)
        high, low = max(opened, price) + 5, min(opened, price) - 5
        at = (START + timedelta(minutes=number)).strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"{at},{opened}.0,{high}.0,{low}.0,{price}.0,{int(draw() * 1000)}.5")
    path.write_text("\n".join(lines) + "\n")
    return path


async def play(path: Path, tape: Tape, seed: int = 7) -> Summary:
    """Play a tape in this process, into a new file."""
    async with SqliteEventStorage(path, durability="normal") as storage:
        return await TradingDemo(storage, plan(tape, seed, None), tape).play()


async def resume(path: Path) -> Summary:
    """Resume the run in a file, in this process."""
    async with SqliteEventStorage(path, durability="normal") as storage:
        run, _ = await find_run(storage)
        assert run is not None
        return await TradingDemo(storage, run, tape_of(run, str(path))).play()


async def _outcome(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return a log's orders, fills and positions, by symbol and kind, in the order of the log."""
    found: dict[str, list[dict[str, Any]]] = {}
    async with SqliteEventStorage(path) as storage:
        async for envelope in storage.read(types=RESULT_EVENTS):
            event = envelope.event
            kind = "order" if event.event_type in ("order.placed", "order.rejected") else event.event_type
            fields = {"id": event.event_id, "type": event.event_type, **event.to_dict()["payload"]}
            found.setdefault(f"{event.symbol} {kind}", []).append(fields)
        figures = await storage.get_event_statistics()
        found["counts"] = [figures["events_by_type"]]
    return found


def outcome(path: Path) -> dict[str, list[dict[str, Any]]]:
    return asyncio.run(_outcome(path))


def environment(**more: str) -> dict[str, str]:
    """Return an environment that reveals nothing of the terminal the tests run in."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")}
    return {**kept, "TERM": "xterm-256color", **more}


def demo(
    folder: Path, arguments: Iterable[object], *, module: str = "pabal", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``pabal demo`` in its own process, with ``folder`` as its working directory."""
    return warm.run(
        *(module, "demo", *map(str, arguments)),
        warm=warm.COMMANDS,
        cwd=folder,
        env=env or environment(),
        timeout=LIMIT,
    )
