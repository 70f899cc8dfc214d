"""The processes on a real Valkey server, with one killed midway; and handlers that tolerate repetition."""

import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from tests.brokers.server import Server

from examples.distributed import __main__ as program
from examples.distributed.app import (
    Broker,
    OrderFilled,
    OrderPlaced,
    Portfolio,
    Strategy,
    TickReceived,
    ticks,
)
from pabal import InMemoryEventBus, InMemoryEventStorage
from pabal.errors import BrokerUnavailableError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def url() -> Iterator[str]:
    """A server for one test only."""
    server = Server()
    server.start()
    yield server.url
    server.remove()


def test_several_processes_with_one_killed_reach_the_positions_of_a_single_process(url: str) -> None:
    """If a strategy process died, orders would be missing or placed twice."""
    command = [sys.executable, "-m", "examples.distributed", "--url", url, "--ticks", "300"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    single, distributed, verdict = result.stdout.splitlines()
    assert (result.returncode, verdict) == (0, "the same"), result.stdout + result.stderr
    assert "one of two strategy processes was killed" in result.stderr
    assert single.partition(":")[2].split() == distributed.partition(":")[2].split()
    assert f"fills {len([tick for tick in ticks(300) if tick.price != tick.average])}" in distributed


async def test_a_tick_handled_twice_places_one_order() -> None:
    """A process that takes over from a dead one would place its orders again."""
    storage = InMemoryEventStorage()
    portfolio = Portfolio()
    async with InMemoryEventBus(storage) as bus:
        strategy = Strategy(bus)
        bus.subscribe(OrderPlaced, Broker(bus), name="broker")
        bus.subscribe(OrderFilled, portfolio, name="portfolio")
        tick = TickReceived("SYM-00", 1, Decimal(990), Decimal(1000))
        for _ in range(2):
            await strategy.handle(tick)
        await bus.drain()
        assert (await storage.get_event_statistics())["total_events"] == 2
    assert portfolio.summary() == ["SYM-00 +1", "cash -990", "fills 1"]


async def test_a_redelivered_fill_changes_nothing() -> None:
    """A redelivered fill would be paid twice."""
    portfolio = Portfolio()
    fill = OrderFilled("SYM-01", -2, Decimal(1010))
    for _ in range(2):
        await portfolio.handle(fill)
    assert portfolio.positions == {"SYM-01": -2}
    assert portfolio.cash == Decimal(2020)


def test_an_interrupted_run_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who tries the example and stops it would see a traceback of sixty lines."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "compare", interrupted)
    monkeypatch.setattr(sys, "argv", ["distributed", "--url", "redis://nowhere"])
    with pytest.raises(SystemExit) as exit_info:
        program.main()
    assert exit_info.value.code == 130


def test_an_unreachable_server_exits_with_a_one_line_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong port would end in a traceback from each process."""

    async def unavailable(*_: object) -> None:
        raise BrokerUnavailableError(path="redis://127.0.0.1:1/0", reason="no connection")

    monkeypatch.setattr(program, "run_part", unavailable)
    monkeypatch.setattr(sys, "argv", ["distributed", "--part", "feed", "--url", "redis://127.0.0.1:1/0"])
    with pytest.raises(SystemExit, match="no connection"):
        program.main()
