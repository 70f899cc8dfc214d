"""Projections: each effect exactly once, rebuilt beside the live tables, and readable after own writes."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import pytest

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage, Receipt, SqliteEventStorage
from pabal.domain.registry import registry
from pabal.errors import (
    EventNotProjectedError,
    ProjectionError,
    ProjectionHandlerError,
    UsageError,
)
from pabal.eventsourcing import Projection, Repository
from pabal.eventsourcing.generations import abandon, read_generations
from tests.eventsourcing.read_models import BALANCES, Balances, BalancesAgain, Choosy
from tests.eventsourcing.samples import Account, Deposited, Stray

ONE = Decimal(1)


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[InMemoryEventBus]:
    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        bus = InMemoryEventBus(storage)
        await bus.start()
        yield bus
        await bus.stop()


async def _publish(bus: InMemoryEventBus, count: int, accounts: int = 3) -> Receipt:
    receipts = await bus.publish_batch(Deposited(f"a{n % accounts}", ONE) for n in range(count))
    return receipts[-1]


async def _sum(projection: Projection) -> int:
    return (await projection.rows("SELECT coalesce(sum(entries), 0) FROM {balances}"))[0][0]


# -- live ---------------------------------------------------------------------------------------------------


async def test_a_projection_shows_what_was_just_written(bus: InMemoryEventBus) -> None:
    """A page shown after a command would not have its effect, unless the application polled."""
    async with Balances(bus) as balances:
        receipt = await _publish(bus, 7)
        await balances.reached(receipt, timeout=30)
        assert await balances.rows(BALANCES) == [("a0", 3, 3), ("a1", 2, 2), ("a2", 2, 2)]
        edit = Repository(Account, bus).edit("a0")
        async with edit as account:
            account.withdraw(Decimal(2))
        assert edit.receipt is not None
        await balances.reached(edit.receipt, timeout=30)
        assert (await balances.rows(BALANCES))[0] == ("a0", 1, 4)


async def test_it_goes_on_where_it_stood(bus: InMemoryEventBus) -> None:
    """Events would be missed while the application was down, or counted twice after it."""
    balances = Balances(bus, batch=3)
    for count in (5, 4, 0):
        await _publish(bus, 5)
        await balances.start()
        await balances.start()
        await balances.reached(await _publish(bus, max(count, 1)), timeout=30)
        await balances.stop()
    assert await _sum(balances) == 15 + 5 + 4 + 1
    assert not balances.is_running


async def test_events_that_do_not_concern_it_move_it_on(bus: InMemoryEventBus) -> None:
    """Waiting for a position would never end if the event there is none of the projection's."""
    async with Balances(bus) as balances:
        await balances.reached(await bus.publish(Stray()), timeout=30)
        assert await balances.rows(BALANCES) == []


async def test_another_process_wakes_it(tmp_path: Path) -> None:
    """With several processes on the file, it would show only what its own has written."""
    path = tmp_path / "log.db"
    async with (
        SqliteEventStorage(path) as here,
        SqliteEventStorage(path) as there,
        Balances(here) as balances,
    ):
        positions = await there.store_events([Deposited("a", ONE)])
        await balances.reached(positions[-1], timeout=30)
        assert await balances.rows(BALANCES) == [("a", 1, 1)]


async def test_two_processes_that_project_the_same_count_each_event_once(tmp_path: Path) -> None:
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


async def test_a_handler_that_raises_leaves_effect_and_position_together(bus: InMemoryEventBus) -> None:
    """A failed batch would leave some of its events there twice, or pass the failing one over. Promise 5."""
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


async def test_killed_between_effect_and_position_each_event_counts_once(tmp_path: Path) -> None:
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
        assert await _sum(balances) == 100


# -- rebuild ------------------------------------------------------------------------------------------------


async def test_a_rebuild_beside_publishers_ends_with_the_same_rows(bus: InMemoryEventBus) -> None:
    """A rebuilt model would differ from the live one, or lose what was published meanwhile. Promise 32."""
    async with Balances(bus, batch=50) as balances:
        await _publish(bus, 500)
        steps: list[tuple[int, int]] = []
        publishing = asyncio.create_task(_keep_publishing(bus, 40))
        await balances.rebuild(progress=lambda position, head: steps.append((position, head)))
        last = await publishing
        await balances.reached(last, timeout=30)
        live = await balances.rows(BALANCES)
        assert await _sum(balances) == 540
        await balances.rebuild()
        assert await balances.rows(BALANCES) == live
        assert len(steps) >= 10
        assert all(position <= head for position, head in steps)
        names = await balances.rows(
            "SELECT name FROM sqlite_schema WHERE name LIKE 'balances%' AND type = 'table'"
        )
        assert names == [("balances",)]
        await balances.reached(await _publish(bus, 1), timeout=30)
        assert await _sum(balances) == 541


async def _keep_publishing(bus: InMemoryEventBus, count: int) -> Receipt:
    return [await bus.publish(Deposited("a0", ONE)) for _ in range(count)][-1]


async def test_while_it_is_rebuilt_the_live_tables_answer(bus: InMemoryEventBus) -> None:
    """Readers would find an empty or half-made model for as long as a rebuild takes."""
    async with Balances(bus, batch=10) as balances:
        await balances.reached(await _publish(bus, 100), timeout=30)
        seen: list[int] = []
        reader = sqlite3.connect(bus.storage.path)  # type: ignore[union-attr]

        def look(position: int, head: int) -> None:
            seen.append(reader.execute("SELECT sum(entries) FROM balances").fetchone()[0])

        await balances.rebuild(progress=look)
        reader.close()
        assert seen == [100] * len(seen)
        assert len(seen) >= 10


async def test_a_higher_version_is_built_at_start_and_replaces_the_lower(bus: InMemoryEventBus) -> None:
    """New methods would go on with rows that the old ones made."""
    async with Balances(bus) as balances:
        await balances.reached(await _publish(bus, 6), timeout=30)
        async with BalancesAgain(bus) as again:
            assert await again.rows(BALANCES) == [("a0", 200), ("a1", 200), ("a2", 200)]
            # The older one, still running elsewhere, must leave the new tables alone.
            receipt = await _publish(bus, 1)
            await again.reached(receipt, timeout=30)
            with pytest.raises(ProjectionError, match="version 2"):
                await balances.reached(receipt, timeout=30)
    with pytest.raises(ProjectionError, match="version 2"):
        await Balances(bus).start()
    back = Balances(bus)
    await back.rebuild()
    assert await _sum(back) == 7


async def test_a_version_that_was_removed_leaves_alone_what_another_one_built(bus: InMemoryEventBus) -> None:
    """Both stand at the same position in a first set of tables: old methods would write into new ones."""
    async with Balances(bus) as balances:
        await balances.reached(await _publish(bus, 6), timeout=30)
        again = BalancesAgain(bus)
        await again.remove()
        async with again:
            pass
        receipt = await _publish(bus, 1)
        with pytest.raises(ProjectionError, match="version 2"):
            await balances.reached(receipt, timeout=30)
        async with again:
            await again.reached(receipt, timeout=30)
            assert await again.rows(BALANCES) == [("a0", 300), ("a1", 200), ("a2", 200)]


async def test_a_newer_version_stops_where_an_older_one_rebuilt_the_tables(bus: InMemoryEventBus) -> None:
    """After a release was taken back, its processes would go on with methods that do not fit the tables."""
    async with BalancesAgain(bus) as again:
        await again.reached(await _publish(bus, 6), timeout=30)
        await Balances(bus).rebuild()
        receipt = await _publish(bus, 1)
        with pytest.raises(ProjectionError, match="rebuilt by version 1, this class is version 2"):
            await again.reached(receipt, timeout=30)
        await again.start()
        await again.reached(receipt, timeout=30)
        assert (await again.rows(BALANCES))[0] == ("a0", 300)


async def test_an_interrupted_build_goes_on_at_the_next_start(bus: InMemoryEventBus) -> None:
    """A long build that was stopped would begin at the first event again, or count what it had done twice."""
    await _publish(bus, 50)

    class StoppedError(Exception):
        pass

    def stop_at(position: int, head: int) -> None:
        if position >= 20:
            raise StoppedError

    with pytest.raises(StoppedError):
        await Balances(bus, batch=10).start(progress=stop_at)
    positions: list[int] = []
    balances = Balances(bus, batch=10)
    await balances.start(progress=lambda position, head: positions.append(position))
    await balances.stop()
    assert positions == [30, 40, 50]
    assert await _sum(balances) == 50


async def test_a_cancelled_rebuild_leaves_the_live_tables_and_nothing_else(bus: InMemoryEventBus) -> None:
    """Half a model would stay in the file for ever, and hold back trimming."""
    async with Balances(bus, batch=10) as balances:
        await balances.reached(await _publish(bus, 50), timeout=30)
        rebuilding = asyncio.create_task(balances.rebuild(progress=lambda *at: rebuilding.cancel()))
        with pytest.raises(asyncio.CancelledError):
            await rebuilding
        left = "SELECT name FROM sqlite_schema WHERE name LIKE 'balances%' AND type = 'table'"
        assert await balances.rows(left) == [("balances",)]
        assert (await bus.storage.trim(max_events=1)).held_back_by == ()  # type: ignore[union-attr]
        await balances.reached(await _publish(bus, 1), timeout=30)
        assert await _sum(balances) == 51


async def test_a_rebuild_that_is_cancelled_once_it_is_done_stays_done(bus: InMemoryEventBus) -> None:
    """The tables would be live, and without their position: no start would ever succeed again."""
    async with Balances(bus) as balances:
        await balances.reached(await _publish(bus, 5), timeout=30)
    (live,) = await bus.storage.transact(lambda tx: read_generations(tx, "balances"))  # type: ignore[union-attr]
    as_it_was_built = replace(live, is_live=False)
    await bus.storage.transact(lambda tx: abandon(tx, "balances", as_it_was_built))  # type: ignore[union-attr]
    async with balances:
        assert await _sum(balances) == 5


async def test_an_unknown_event_is_skipped_live_and_fails_a_rebuild(
    bus: InMemoryEventBus, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 34: a class that somebody forgot to import would silently be missing from a rebuilt model."""
    with registry.isolated():

        class Forgotten(DomainEvent):
            event_type: ClassVar[str] = "es.forgotten"

        balances = Balances(bus)
        await balances.start()
        receipts = await bus.publish_batch([Deposited("a", ONE), Forgotten(), Deposited("a", ONE)])
        # Known to the registry and no concern of this projection.
        await balances.reached(receipts[-1], timeout=30)
        await balances.stop()
        position = (await bus.publish(Forgotten())).position
    await balances.start()
    await balances.reached(await bus.publish(Deposited("a", ONE)), timeout=30)
    assert await balances.rows(BALANCES) == [("a", 3, 3)]
    assert "'es.forgotten'" in caplog.text
    with pytest.raises(EventNotProjectedError) as caught:
        await balances.rebuild()
    assert (caught.value.event_type, caught.value.position) == ("es.forgotten", receipts[1].position)
    assert position is not None
    # The live model has not suffered, and goes on.
    await balances.reached(await bus.publish(Deposited("a", ONE)), timeout=30)
    assert await balances.rows(BALANCES) == [("a", 4, 4)]
    await balances.stop()


async def test_an_event_of_a_matching_type_without_a_method_fails_a_rebuild(bus: InMemoryEventBus) -> None:
    """Promise 34: a new event of the family would be left out of the model without anybody noticing."""
    async with Choosy(bus) as choosy:
        await choosy.reached(await bus.publish(Stray()), timeout=30)
        with pytest.raises(EventNotProjectedError, match=r"es\.stray"):
            await choosy.rebuild()

    class LessChoosy(Choosy):
        name = "choosy"
        ignores = (Stray,)

    async with LessChoosy(bus) as less:
        await less.rebuild()


async def test_a_log_without_its_beginning_cannot_be_projected(bus: InMemoryEventBus) -> None:
    """A model made of what is left would look whole."""
    await _publish(bus, 20)
    await bus.storage.trim(max_events=5)  # type: ignore[union-attr]
    with pytest.raises(ProjectionError, match="trimmed"):
        await Balances(bus).start()


async def test_tables_of_somebody_else_are_not_touched(bus: InMemoryEventBus) -> None:
    """An application's own table of that name would be dropped."""
    await bus.storage.transact(lambda tx: tx.execute("CREATE TABLE balances (precious TEXT)"))  # type: ignore[union-attr]
    with pytest.raises(ProjectionError, match="already"):
        await Balances(bus).start()
    assert await bus.storage.query("SELECT * FROM balances") == []  # type: ignore[union-attr]


# -- misuse -------------------------------------------------------------------------------------------------


async def test_misuse_is_told(bus: InMemoryEventBus) -> None:
    """The caller would wait for ever, or meet an error of SQLite."""
    with pytest.raises(UsageError, match="InMemoryProjection"):
        Balances(InMemoryEventStorage())
    with pytest.raises(UsageError, match="batch"):
        Balances(bus, batch=0)
    balances = Balances(bus)
    with pytest.raises(UsageError, match="start"):
        await balances.reached(1)
    await balances.start()
    for wrong in ("SELEC 1", "SELECT * FROM nowhere", "SELECT ?", "DELETE FROM {balances}"):
        with pytest.raises(UsageError, match="one SELECT"):
            await balances.rows(wrong)
    with pytest.raises(UsageError, match="no position"):
        await balances.reached(Receipt("x"))
    with pytest.raises(TimeoutError):
        await balances.reached(10**6, timeout=0.01)
    waiting = asyncio.create_task(balances.reached(10**6))
    await asyncio.sleep(0)
    await balances.stop()
    with pytest.raises(UsageError, match="stopped"):
        await waiting
