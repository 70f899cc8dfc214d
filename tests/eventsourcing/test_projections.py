"""Projections: each effect exactly once, also across processes and crashes; reading your own writes."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage, Receipt, SqliteEventStorage
from pabal.errors import (
    ProjectionHandlerError,
    UsageError,
)
from pabal.eventsourcing import Repository
from tests.eventsourcing.read_models import BALANCES, ONE, Balances, Choosy, deposit, entries
from tests.eventsourcing.samples import Account, Deposited, Stray

# -- live ---------------------------------------------------------------------------------------------------


async def test_a_projection_shows_what_was_just_written(bus: InMemoryEventBus) -> None:
    """A page shown after a command would lack its effect, unless the application polled."""
    async with Balances(bus) as balances:
        receipt = await deposit(bus, 7)
        await balances.reached(receipt, timeout=30)
        assert await balances.rows(BALANCES) == [("a0", 3, 3), ("a1", 2, 2), ("a2", 2, 2)]
        edit = Repository(Account, bus).edit("a0")
        async with edit as account:
            account.withdraw(Decimal(2))
        assert edit.receipt is not None
        await balances.reached(edit.receipt, timeout=30)
        assert (await balances.rows(BALANCES))[0] == ("a0", 1, 4)


async def test_a_projection_resumes_where_it_stopped(bus: InMemoryEventBus) -> None:
    """Events would be missed while the application is down, or counted twice afterwards."""
    balances = Balances(bus, batch=3)
    for count in (5, 4, 0):
        await deposit(bus, 5)
        await balances.start()
        await balances.start()
        await balances.reached(await deposit(bus, max(count, 1)), timeout=30)
        await balances.stop()
    assert await entries(balances) == 15 + 5 + 4 + 1
    assert not balances.is_running


async def test_a_projection_advances_past_events_that_it_ignores(bus: InMemoryEventBus) -> None:
    """Waiting for the position of an event that the projection ignores would never end."""
    async with Balances(bus) as balances:
        await balances.reached(await bus.publish(Stray()), timeout=30)
        assert await balances.rows(BALANCES) == []


async def test_an_event_stored_by_another_process_wakes_a_projection(tmp_path: Path) -> None:
    """With several processes on a file, each would show only its own events."""
    path = tmp_path / "log.db"
    async with (
        SqliteEventStorage(path) as here,
        SqliteEventStorage(path) as there,
        Balances(here) as balances,
    ):
        positions = await there.store_events([Deposited("a", ONE)])
        await balances.reached(positions[-1], timeout=30)
        assert await balances.rows(BALANCES) == [("a", 1, 1)]


async def test_two_processes_running_one_projection_count_each_event_once(tmp_path: Path) -> None:
    """Each process would add every event to the shared tables. Promise 5."""
    path = tmp_path / "log.db"
    async with (
        SqliteEventStorage(path) as one,
        SqliteEventStorage(path) as two,
        Balances(one, batch=2) as here,
        Balances(two, batch=3) as there,
    ):
        last = 0
        for _ in range(20):
            await one.store_events([Deposited("a", ONE), Deposited("b", ONE)])
            last = (await two.store_events([Deposited("a", ONE)]))[-1]
        await here.reached(last, timeout=30)
        await there.reached(last, timeout=30)
        assert await here.rows(BALANCES) == [("a", 40, 40), ("b", 20, 20)]


async def test_a_handler_that_raises_keeps_rows_and_position_consistent(bus: InMemoryEventBus) -> None:
    """A failed batch would leave effects twice, or the failing event would be skipped. Promise 5."""
    async with Choosy(bus) as choosy:
        await choosy.reached(await bus.publish(Deposited("good", ONE)), timeout=30)
        position = choosy.position
        receipts = await bus.publish_batch([Deposited("good", ONE), Deposited("bad", ONE)])
        with pytest.raises(ProjectionHandlerError) as caught:
            await choosy.reached(receipts[-1], timeout=30)
        assert caught.value.position == receipts[-1].position
        assert isinstance(caught.value.__cause__, ValueError)
        assert not choosy.is_running
        assert await choosy.rows("SELECT * FROM {choosy} WHERE account = 'bad'") == []
        total = (await choosy.rows("SELECT count(*) FROM {choosy}"))[0][0]
        assert total == choosy.position - position + 1
        with pytest.raises(ProjectionHandlerError):
            await choosy.reached(receipts[-1])


CHILD = """
import asyncio, os, signal, sys
from pabal import SqliteEventStorage
from tests.eventsourcing.read_models import Balances

class Dying(Balances):
    name = "balances"
    left = int(sys.argv[2])

    def _add(self, tx, account, amount):
        super()._add(tx, account, amount)
        Dying.left -= 1
        if not Dying.left:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with SqliteEventStorage(sys.argv[1]) as storage, Dying(storage, batch=7) as projection:
        await projection.reached(await storage.head())

asyncio.run(main())
"""


async def test_a_kill_between_effect_and_position_counts_each_event_once(tmp_path: Path) -> None:
    """Promise 5: a crash would leave an effect without its position, or a position without its effect."""
    path = tmp_path / "log.db"
    async with SqliteEventStorage(path) as storage:
        await storage.store_events([Deposited(f"a{n % 3}", ONE) for n in range(40)])
        async with Balances(storage):
            pass
        await storage.store_events([Deposited(f"a{n % 3}", ONE) for n in range(60)])
    for left in (1, 8, 20):
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, str(path), str(left))
        assert await asyncio.wait_for(child.wait(), 60) == -signal.SIGKILL
        connection = sqlite3.connect(path)
        saved = connection.execute("SELECT position FROM pabal_projections WHERE is_live").fetchone()[0]
        assert connection.execute("SELECT sum(entries) FROM balances").fetchone()[0] == saved < 100
        connection.close()
    async with SqliteEventStorage(path) as storage, Balances(storage) as balances:
        await balances.reached(100, timeout=30)
        assert await entries(balances) == 100


# -- misuse -------------------------------------------------------------------------------------------------


async def test_misuse_of_a_projection_raises_usage_errors(bus: InMemoryEventBus) -> None:
    """The caller would wait forever, or get an error from SQLite."""
    with pytest.raises(UsageError, match="InMemoryProjection"):
        Balances(InMemoryEventStorage())
    with pytest.raises(UsageError, match="batch"):
        Balances(bus, batch=0)
    balances = Balances(bus)
    with pytest.raises(UsageError, match="start"):
        await balances.reached(1)
    await balances.start()
    for wrong in ("SELEC 1", "SELECT * FROM nowhere", "SELECT ?", "DELETE FROM {balances}"):
        with pytest.raises(UsageError, match="cannot be run"):
            await balances.rows(wrong)
    with pytest.raises(UsageError, match="no position"):
        await balances.reached(Receipt("x"))
    with pytest.raises(TimeoutError, match=r"^position 1000000 was not reached within 0\.01 s"):
        await balances.reached(10**6, timeout=0.01)
    with pytest.raises(UsageError, match="runs in another event loop"):
        await asyncio.to_thread(lambda: asyncio.run(balances.reached(10**6, timeout=1)))
    waiting = asyncio.create_task(balances.reached(10**6))
    await asyncio.sleep(0)
    await balances.stop()
    with pytest.raises(UsageError, match="stopped"):
        await waiting


async def test_reached_returns_at_once_for_an_edit_that_recorded_nothing(bus: InMemoryEventBus) -> None:
    """Its receipt is None: waiting for it would end in an AttributeError."""
    async with Balances(bus) as balances:
        edit = Repository(Account, bus).edit("a")
        async with edit:
            pass
        await balances.reached(edit.receipt, timeout=30)
