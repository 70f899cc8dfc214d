"""Trimming a log with projections: none loses an event, and none continues past a deleted one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from pabal import SqliteEventStorage
from pabal.errors import ProjectionError, UsageError
from pabal.eventsourcing import Projection
from pabal.storage.sqlite import retention
from pabal.storage.sqlite.transaction import Transaction
from tests.eventsourcing.read_models import Balances, BalancesV2
from tests.eventsourcing.samples import Deposited


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteEventStorage]:
    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        yield storage


async def _store(storage: SqliteEventStorage, count: int) -> int:
    return (await storage.store_events([Deposited("a", Decimal(1)) for _ in range(count)]))[-1]


async def _entries(projection: Projection) -> int:
    return int((await projection.rows("SELECT coalesce(sum(entries), 0) FROM {balances}"))[0][0])


async def _first_position(storage: SqliteEventStorage) -> int:
    return (await storage.read_page(0, limit=1)).rows[0].position


async def _stopped_after(storage: SqliteEventStorage, count: int) -> Balances:
    """Return a projection that was stopped after ``count`` events."""
    balances = Balances(storage)
    async with balances:
        await balances.reached(await _store(storage, count), timeout=30)
    return balances


class _StopHereError(BaseException):
    pass


async def _interrupt_rebuild(storage: SqliteEventStorage, at: int) -> None:
    """Interrupt a rebuild at a position, as a crash of its process would."""

    def stop_at(position: int, head: int) -> None:
        if position >= at:
            raise _StopHereError

    with pytest.raises(_StopHereError):
        await Balances(storage, batch=5).rebuild(progress=stop_at)


async def test_trim_keeps_events_that_a_projection_has_not_processed(storage: SqliteEventStorage) -> None:
    """Its tables would lack events forever, and look complete. Promise 33."""
    balances = await _stopped_after(storage, 20)
    last = await _store(storage, 15)
    assert await storage.trim(max_events=1) == retention.Trimmed(20, ("projection balances",))
    assert await _first_position(storage) == 21
    async with balances:
        await balances.reached(last, timeout=30)
        assert await _entries(balances) == 35
        assert await storage.trim(max_events=1) == retention.Trimmed(14)
        await balances.reached(await _store(storage, 5), timeout=30)
        assert await _entries(balances) == 40


async def test_trim_is_held_back_by_the_slowest_reader(storage: SqliteEventStorage) -> None:
    """A subscription that is far ahead would hide a projection that is not, or the other way round."""
    await storage.open_subscription("mailer", "beginning")
    await _stopped_after(storage, 20)
    await _store(storage, 15)
    held_back_by = ("mailer", "projection balances")
    assert await storage.trim(max_events=5) == retention.Trimmed(0, held_back_by)
    assert await storage.trim(max_events=20) == retention.Trimmed(0, ("mailer",))


async def test_trim_keeps_the_events_that_an_interrupted_rebuild_needs(storage: SqliteEventStorage) -> None:
    """A release that was stopped during its first start would never start again."""
    balances = await _stopped_after(storage, 30)
    await _interrupt_rebuild(storage, at=10)
    assert await storage.trim(max_events=1) == retention.Trimmed(10, ("projection balances (rebuild)",))

    def remove_live(tx: Transaction) -> None:
        tx.execute("DELETE FROM pabal_projections WHERE is_live")
        tx.execute("DROP TABLE balances")

    await storage.transact(remove_live)
    async with balances:
        assert await _entries(balances) == 30


async def test_trim_during_a_rebuild_keeps_the_events_it_needs(storage: SqliteEventStorage) -> None:
    """The nightly trim would break the start of every new version that is being built."""
    await _stopped_after(storage, 200)
    trims: list[asyncio.Task[retention.Trimmed]] = []
    newer = BalancesV2(storage, batch=10)
    await newer.start(
        progress=lambda position, head: trims.append(asyncio.create_task(storage.trim(max_events=1)))
    )
    assert len(trims) >= 20
    await asyncio.gather(*trims)
    assert await newer.rows("SELECT cents FROM {balances}") == [(20_000,)]
    assert (await storage.trim(max_events=1)).held_back_by == ()
    assert await _first_position(storage) == 200
    await newer.stop()


async def test_trim_keeps_the_events_of_a_rebuild_that_starts_during_it(storage: SqliteEventStorage) -> None:
    """The bound is computed before the rebuild begins, and is used for many commits."""
    await _stopped_after(storage, 30)
    bound = await storage.transact(lambda tx: retention.find_bound(tx, None, 1, None))
    assert bound.upto == 29
    await _interrupt_rebuild(storage, at=10)
    assert len(await storage._do(lambda tx: retention.trim_slice(tx, bound.upto, 100))) == 10
    assert await storage._do(lambda tx: retention.trim_slice(tx, bound.upto, 100)) == []


async def test_rebuild_and_a_new_version_raise_on_a_trimmed_log(storage: SqliteEventStorage) -> None:
    """Good tables would be replaced by ones that lack the beginning."""
    balances = await _stopped_after(storage, 30)
    assert (await storage.trim(max_events=10)).deleted == 20
    with pytest.raises(ProjectionError, match="begins at position 21"):
        await balances.rebuild()
    with pytest.raises(ProjectionError, match="begins at position 21"):
        await BalancesV2(storage).start()
    tables = "SELECT name FROM sqlite_schema WHERE name LIKE 'balances%' AND type = 'table'"
    assert await storage.query(tables) == [("balances",)]
    async with balances:
        await balances.reached(await _store(storage, 1), timeout=30)
        assert await _entries(balances) == 31


async def test_a_projection_stops_at_events_deleted_before_it_read_them(storage: SqliteEventStorage) -> None:
    """If something else trimmed the log, it would continue as if nothing were missing."""
    balances = await _stopped_after(storage, 10)
    last = await _store(storage, 20)
    await storage._do(lambda tx: tx.execute("DELETE FROM events WHERE position <= 15"))
    await balances.start()
    with pytest.raises(ProjectionError, match=r"begins at position 16.* up to position 10"):
        await balances.reached(last, timeout=30)
    assert await _entries(balances) == 10
    # It needs none of the remaining events.
    assert await storage.trim(max_events=1) == retention.Trimmed(14)
    await balances.stop()


async def test_a_removed_projection_does_not_hold_back_trim(storage: SqliteEventStorage) -> None:
    """A projection that is no longer in use would keep the log from ever being trimmed."""
    balances = await _stopped_after(storage, 10)
    await _interrupt_rebuild(storage, at=5)
    await _store(storage, 10)
    async with balances:
        with pytest.raises(UsageError, match="stop"):
            await balances.remove()
    await balances.remove()
    await balances.remove()
    assert balances.position == 0
    assert await storage.query("SELECT name FROM sqlite_schema WHERE name LIKE 'balances%'") == []
    assert await storage.trim(max_events=1) == retention.Trimmed(19)


async def test_a_projection_removed_by_another_instance_stops(storage: SqliteEventStorage) -> None:
    """It would recreate tables that were just dropped, or wait forever."""
    async with Balances(storage) as balances:
        await balances.reached(await _store(storage, 10), timeout=30)
        await Balances(storage).remove()
        last = await _store(storage, 1)
        with pytest.raises(ProjectionError, match="removed"):
            await balances.reached(last, timeout=30)
