"""Rebuilds of projections with other versions, with views of the application, and with failures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from pabal import SqliteEventStorage
from pabal.errors import ProjectionDefinitionError, ProjectionError
from pabal.eventsourcing import Projection, ProjectionTransaction, projects
from pabal.eventsourcing.read_model import Statements
from tests.eventsourcing.read_models import BALANCES, Balances, BalancesV2
from tests.eventsourcing.samples import Deposited

ONE = Decimal(1)


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteEventStorage]:
    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        yield storage


async def _store(storage: SqliteEventStorage, count: int) -> int:
    return (await storage.store_events([Deposited(f"a{n % 3}", ONE) for n in range(count)]))[-1]


def _execute(sql: str, tx: Statements) -> None:
    tx.execute(sql)


async def test_a_lower_version_does_not_touch_tables_of_a_higher_one_under_construction(
    storage: SqliteEventStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a rolling release, each version would drop the other's tables repeatedly, and neither finish."""
    await _store(storage, 50)
    head, starts, positions = storage.head, [Balances(storage)], []

    async def head_after_the_lower_version_has_tried() -> int:
        # The rebuild calls this after each batch: at the first, the higher version is half built.
        while starts:
            with pytest.raises(ProjectionError, match="version 2 of its tables is being built"):
                await starts.pop().start()
        return await head()

    monkeypatch.setattr(storage, "head", head_after_the_lower_version_has_tried)
    higher = BalancesV2(storage, batch=10)
    await higher.start(progress=lambda position, _: positions.append(position))
    await higher.stop()
    assert not starts
    assert positions == [10, 20, 30, 40, 50]


async def test_views_and_triggers_of_the_application_survive_a_rebuild(storage: SqliteEventStorage) -> None:
    """A view on the tables would make every rebuild, and each new version, fail at its end."""
    await _store(storage, 3)
    statements = (
        "CREATE TABLE refunds (account TEXT)",
        "CREATE VIEW rich AS SELECT account FROM balances WHERE balance > 0",
        'CREATE VIEW "the ""richest""" AS SELECT max(account) FROM rich',
        "CREATE VIEW of_nothing AS SELECT * FROM nowhere",
        "CREATE TRIGGER pay INSTEAD OF INSERT ON rich BEGIN "
        "UPDATE balances SET balance = balance + 1 WHERE account = new.account; END",
        "CREATE TRIGGER refund AFTER INSERT ON refunds BEGIN "
        "UPDATE balances SET balance = 0 WHERE account = new.account; END",
    )
    own = (
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE type IN ('view', 'trigger') ORDER BY name"
    )
    async with Balances(storage) as balances:
        for sql in statements:
            await storage.transact(partial(_execute, sql))
        before = await storage.query(own)
        await balances.rebuild()
        assert await storage.query(own) == before
        assert await storage.query('SELECT * FROM "the ""richest"""') == [("a2",)]
        await storage.transact(partial(_execute, "INSERT INTO rich VALUES ('a0')"))
        await storage.transact(partial(_execute, "INSERT INTO refunds VALUES ('a1')"))
        assert await balances.rows(BALANCES) == [("a0", 2, 1), ("a1", 0, 1), ("a2", 1, 1)]


async def test_triggers_between_the_tables_of_a_projection_are_recreated_by_a_rebuild(
    storage: SqliteEventStorage,
) -> None:
    """They would be kept like triggers of the application, and write into tables that are no longer there."""

    class Audited(Projection):
        tables = """
            CREATE TABLE {audited} (account TEXT);
            CREATE TABLE {audits} (account TEXT);
            CREATE TRIGGER {audited}_seen AFTER INSERT ON {audited} BEGIN
                INSERT INTO {audits} VALUES (new.account);
            END;
        """

        @projects(Deposited)
        def _deposited(self, event: Deposited, tx: ProjectionTransaction) -> None:
            tx.execute("INSERT INTO {audited} VALUES (?)", (event.account,))

    await _store(storage, 2)
    async with Audited(storage) as audited:
        for _ in range(3):
            await audited.rebuild()
        await audited.reached(await _store(storage, 1), timeout=30)
        assert await audited.rows("SELECT * FROM {audits}") == [("a0",), ("a1",), ("a0",)]


def _with_tables(script: str) -> None:
    class Odd(Projection):
        tables = script

        @projects(Deposited)
        def _deposited(self, event: Deposited, tx: ProjectionTransaction) -> None:
            raise NotImplementedError


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("CREATE INDEX by_account ON {odd} (account)", "begin the name of each index"),
        ("CREATE TRIGGER t AFTER INSERT ON {odd} BEGIN SELECT 1; END", "begin the name of each index"),
        ("CREATE VIEW {odd}_seen AS SELECT * FROM {odd}", "view odd_seen would not be rebuilt"),
        ("CREATE TABLE IF NOT EXISTS other (account TEXT)", "table other would not be rebuilt"),
    ],
)
def test_tables_that_a_rebuild_could_not_recreate_are_rejected(more: str, message: str) -> None:
    """The mistake would surface with the first new version, in production."""
    with pytest.raises(ProjectionDefinitionError, match=message):
        _with_tables(f"CREATE TABLE {{odd}} (account TEXT); {more};")


def test_a_trigger_may_write_into_a_table_of_the_application() -> None:
    """The application's own tables do not exist when the class is defined."""
    _with_tables(
        "CREATE TABLE {odd} (account TEXT); CREATE TRIGGER {odd}_told AFTER INSERT ON {odd} BEGIN "
        "INSERT INTO news VALUES (new.account); END"
    )


class OtherBalances(Balances):
    """A class with the same name, as in another module, or changed without a new version."""

    name = "balances"
    tables = "CREATE TABLE {balances} (account TEXT, amount INTEGER); CREATE TABLE {totals} (amount INTEGER)"

    def _add(self, tx: ProjectionTransaction, account: str, amount: int) -> None:
        tx.execute("INSERT INTO {totals} VALUES (?)", (amount,))


async def test_a_class_with_other_tables_of_the_same_version_does_not_touch_a_build(
    storage: SqliteEventStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would drop the other's tables repeatedly, and neither start would ever finish."""
    await _store(storage, 50)
    head, starts = storage.head, [OtherBalances(storage)]

    async def head_after_the_other_class_has_tried() -> int:
        while starts:
            with pytest.raises(ProjectionError, match="this class has balances, totals; raise its version"):
                await starts.pop().start()
        return await head()

    monkeypatch.setattr(storage, "head", head_after_the_other_class_has_tried)
    positions: list[int] = []
    balances = Balances(storage, batch=10)
    await balances.start(progress=lambda position, _: positions.append(position))
    await balances.stop()
    assert not starts
    assert positions == [10, 20, 30, 40, 50]


async def test_start_rejects_changed_tables_without_a_new_version(
    storage: SqliteEventStorage,
) -> None:
    """It would stop at its next event because of a missing table, with the advice to fix its method."""
    await _store(storage, 3)
    async with Balances(storage):
        pass
    changed = OtherBalances(storage)
    with pytest.raises(ProjectionError, match="its version 1 has the tables balances, this class has"):
        await changed.start()
    assert len(await changed.rows(BALANCES)) == 3, "and what is there stays"
