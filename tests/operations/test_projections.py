"""Operators list and remove projections without their classes, whichever process runs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage, SqliteEventStorage
from pabal.errors import ActionNotPossibleError, ProjectionError, ProjectionNotFoundError
from pabal.eventsourcing import Projection
from pabal.factory import open_operations
from pabal.operations import Operations, operations_of
from pabal.ports.operations import ActionResult, ProjectionView, RebuildView
from tests.eventsourcing.read_models import Balances, BalancesV2
from tests.eventsourcing.samples import Deposited


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteEventStorage]:
    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        yield storage


@pytest.fixture
async def operations(storage: SqliteEventStorage) -> AsyncIterator[Operations]:
    """The operations of another process: with its own connection."""
    async with open_operations(storage.path, actor="kim") as operations:
        yield operations


async def _store(storage: SqliteEventStorage, count: int) -> int:
    return (await storage.store_events([Deposited("a", Decimal(1)) for _ in range(count)]))[-1]


async def _run_until(projection: Projection, position: int) -> None:
    async with projection:
        await projection.reached(position, timeout=30)


class _StopHereError(BaseException):
    pass


async def _interrupt(projection: Projection, at: int, *, first: bool = False) -> None:
    def stop_at(position: int, head: int) -> None:
        if position >= at:
            raise _StopHereError

    with pytest.raises(_StopHereError):
        await (projection.start if first else projection.rebuild)(progress=stop_at)


async def _tables(storage: SqliteEventStorage) -> list[str]:
    names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'balances%' ORDER BY name"
    return [name for (name,) in await storage.query(names)]


async def test_projections_lists_the_live_and_unfinished_tables_of_a_file(
    storage: SqliteEventStorage, operations: Operations
) -> None:
    """The operator would need SQL to see which read model lags, or holds back the log."""
    assert await operations.projections() == []
    await _store(storage, 10)
    await _interrupt(Balances(storage, batch=5), at=5, first=True)
    assert await operations.projections() == [
        ProjectionView("balances", None, 0, 10, (), RebuildView(1, 5, 5))
    ]
    await _run_until(Balances(storage), 10)
    await _store(storage, 5)
    await _interrupt(BalancesV2(storage, batch=4), at=8)
    expected = ProjectionView("balances", 1, 10, 5, ("balances",), RebuildView(2, 8, 7))
    assert await operations.projections() == [expected]
    assert (await operations.projections(rows=True))[0].rows == {"balances": 1}


async def test_a_dropped_table_of_a_projection_is_not_counted(
    storage: SqliteEventStorage, operations: Operations
) -> None:
    """One missing table would prevent all projections from being shown."""
    await _run_until(Balances(storage), await _store(storage, 3))
    await storage.transact(lambda tx: tx.execute("DROP TABLE balances"))
    assert [view.rows for view in await operations.projections(rows=True)] == [{}]


async def test_remove_projection_works_without_the_class(
    storage: SqliteEventStorage, operations: Operations
) -> None:
    """It would hold back the log forever, or an operator drop the wrong table by hand."""
    await _run_until(Balances(storage), await _store(storage, 10))
    await _interrupt(Balances(storage, batch=4), at=4)
    await _store(storage, 5)
    assert (await storage.trim(max_events=1)).held_back_by != ()
    assert (await operations.remove_projection("balances")).count == 1
    assert await operations.projections() == []
    assert await _tables(storage) == []
    assert (await storage.trim(max_events=1)).held_back_by == ()
    (entry,) = await operations.audit()
    assert (entry.actor, entry.action, entry.subject, entry.succeeded) == (
        "kim",
        "remove",
        "projection balances",
        True,
    )


async def test_remove_projection_unfinished_drops_only_an_interrupted_rebuild(
    storage: SqliteEventStorage, operations: Operations
) -> None:
    """It holds back the log like the live tables, and only another rebuild would remove it."""
    await _run_until(Balances(storage), await _store(storage, 10))
    assert (await operations.remove_projection("balances", unfinished=True)).count == 0
    await _interrupt(Balances(storage, batch=4), at=4)
    assert (await operations.remove_projection("balances", unfinished=True)).count == 1
    assert await _tables(storage) == ["balances"]
    (view,) = await operations.projections()
    assert (view.position, view.rebuild) == (10, None)


async def test_a_running_projection_stops_when_it_is_removed(
    storage: SqliteEventStorage, operations: Operations
) -> None:
    """The application would write into dropped tables, or recreate them half-filled."""
    async with Balances(storage) as balances:
        await balances.reached(await _store(storage, 3), timeout=30)
        await operations.remove_projection("balances")
        last = await _store(storage, 1)
        with pytest.raises(ProjectionError, match="removed"):
            await balances.reached(last, timeout=30)
    assert await _tables(storage) == []
    await _run_until(balances, last)
    assert await balances.rows("SELECT entries FROM {balances}") == [(4,)]


async def test_a_rebuild_whose_tables_are_dropped_fails_and_keeps_the_live_tables(
    storage: SqliteEventStorage,
) -> None:
    """It would keep writing, and replace the live tables with nothing."""
    await _run_until(Balances(storage), await _store(storage, 20))
    balances = Balances(storage, batch=5)

    async def drop() -> ActionResult:
        async with open_operations(storage.path) as operations:
            return await operations.remove_projection("balances", unfinished=True)

    dropped: list[ActionResult] = []

    def drop_at_ten(position: int, head: int) -> None:
        if position == 10:
            dropped.append(operator.submit(asyncio.run, drop()).result())

    with ThreadPoolExecutor(1) as operator, pytest.raises(ProjectionError, match="another rebuild"):
        await balances.rebuild(progress=drop_at_ten)
    assert [result.count for result in dropped] == [1]
    assert await balances.rows("SELECT entries FROM {balances}") == [(20,)]


async def test_removing_an_unknown_projection_raises_with_the_known_names(
    storage: SqliteEventStorage, operations: Operations
) -> None:
    """A mistyped name would look as if it had worked."""
    with pytest.raises(ProjectionNotFoundError, match="known projections: none"):
        await operations.remove_projection("balance")
    await _run_until(Balances(storage), await _store(storage, 1))
    with pytest.raises(ProjectionNotFoundError, match="known projections: balances"):
        await operations.remove_projection("balance")
    assert [entry.succeeded for entry in await operations.audit()] == [False, False]


async def test_a_bus_or_log_in_memory_has_no_projections() -> None:
    """An operator of a bus in memory would get an AttributeError."""
    in_memory = operations_of(InMemoryEventStorage())
    assert await in_memory.projections(rows=True) == []
    with pytest.raises(ProjectionNotFoundError):
        await in_memory.remove_projection("balances")
    without_log = operations_of(InMemoryEventBus())
    assert await without_log.projections() == []
    with pytest.raises(ActionNotPossibleError, match="file of a log"):
        await without_log.remove_projection("balances")
