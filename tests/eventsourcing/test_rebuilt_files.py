"""Rebuilding a log into a new file copies its projections; damaged ones are rebuilt."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

from pabal import SqliteEventStorage
from pabal.errors import ProjectionError
from pabal.eventsourcing import Projection, ProjectionTransaction, projects
from tests.eventsourcing.read_models import BALANCES, Balances, BalancesV2
from tests.eventsourcing.samples import Deposited

ONE = Decimal(1)


class Ledger(Projection):
    """Tables with everything that a copy could miss."""

    tables = """
        CREATE TABLE {ledger} (
            line INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, amount INTEGER NOT NULL,
            doubled INTEGER AS (amount * 2) STORED
        );
        CREATE UNIQUE INDEX {ledger}_lines ON {ledger} (account, line);
        CREATE TABLE {accounts} (rowid TEXT, account TEXT PRIMARY KEY, lines INTEGER NOT NULL);
        CREATE TABLE {totals} (account TEXT PRIMARY KEY, total INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TRIGGER {ledger}_counted AFTER INSERT ON {ledger} BEGIN
            INSERT INTO {accounts} VALUES ('', new.account, 1)
            ON CONFLICT (account) DO UPDATE SET lines = lines + 1;
        END;
    """

    @projects(Deposited)
    def _deposited(self, event: Deposited, tx: ProjectionTransaction) -> None:
        tx.execute("INSERT INTO {ledger} (account, amount) VALUES (?, ?)", (event.account, int(event.amount)))
        # The newest line is deleted at once: with AUTOINCREMENT, its number is never reused.
        tx.execute("DELETE FROM {ledger} WHERE amount = 13")
        tx.execute(
            "INSERT INTO {totals} VALUES (?, ?) ON CONFLICT DO UPDATE SET total = total + excluded.total",
            (event.account, int(event.amount)),
        )


LEDGER = (
    "SELECT line, account, amount, doubled FROM {ledger} ORDER BY line",
    "SELECT oid, account, lines FROM {accounts} ORDER BY oid",
    "SELECT * FROM {totals} ORDER BY account",
)


async def _store(storage: SqliteEventStorage, *amounts: int) -> int:
    return (await storage.store_events([Deposited(f"a{n % 3}", Decimal(n)) for n in amounts]))[-1]


def _no_build(position: int, head: int) -> None:
    raise AssertionError(f"rebuilt, at {position} of {head}")


class _StopHereError(BaseException):
    pass


async def _interrupt(projection: Projection, at: int) -> None:
    """Interrupt a rebuild at a position, as a crash of its process would."""

    def stop_at(position: int, head: int) -> None:
        if position >= at:
            raise _StopHereError

    with pytest.raises(_StopHereError):
        await projection.rebuild(progress=stop_at)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return tmp_path / "old.db"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return tmp_path / "new.db"


async def test_tables_and_positions_are_copied_into_the_new_file(old: Path, new: Path) -> None:
    """The first start on the new file would rebuild every model, however long that takes."""
    async with SqliteEventStorage(old) as storage, Ledger(storage) as ledger:
        await ledger.reached(await _store(storage, 1, 2, 3, 4, 5, 13), timeout=30)
        before = [await ledger.rows(sql) for sql in LEDGER]
        await storage.rebuild(new)
    async with SqliteEventStorage(new) as storage:
        ledger = Ledger(storage)
        await ledger.start(progress=_no_build)
        assert [await ledger.rows(sql) for sql in LEDGER] == before
        await ledger.reached(await _store(storage, 6), timeout=30)
        assert (await ledger.rows(LEDGER[0]))[-1] == (7, "a0", 6, 12)
        assert await ledger.rows("SELECT lines FROM {accounts} WHERE account = 'a0'") == [(2,)]
        unique = "SELECT count(*) FROM pragma_index_list('ledger') WHERE name LIKE '%lines' AND \"unique\""
        assert await storage.query(unique) == [(1,)]
        await ledger.rebuild()
        assert (await ledger.rows(LEDGER[2]))[0] == ("a0", 9)
        await ledger.stop()
        assert await storage.check() == []


async def test_an_unfinished_rebuild_resumes_in_the_new_file(old: Path, new: Path) -> None:
    """The new version would start over at the first event, or find unknown tables."""
    async with SqliteEventStorage(old) as storage:
        async with Balances(storage) as balances:
            await balances.reached(await _store(storage, *[1] * 40), timeout=30)
        await _interrupt(BalancesV2(storage, batch=10), at=20)
        await storage.rebuild(new)
    async with SqliteEventStorage(new) as storage:
        assert await Balances(storage).rows(BALANCES) == [("a1", 40, 40)]
        held_back_by = (await storage.trim(max_events=1)).held_back_by
        assert held_back_by == ("projection balances (rebuild)",)
        positions: list[int] = []
        newer = BalancesV2(storage, batch=10)
        await newer.start(progress=lambda position, head: positions.append(position))
        assert (positions, await newer.rows(BALANCES)) == ([30, 40], [("a1", 4000)])
        tables = "SELECT name FROM sqlite_schema WHERE name LIKE 'balances%' AND type = 'table'"
        assert await storage.query(tables) == [("balances",)]
        await newer.stop()


async def test_projections_of_a_trimmed_log_are_copied_into_the_new_file(old: Path, new: Path) -> None:
    """They could never be rebuilt, and the new file would be useless to the application."""
    async with SqliteEventStorage(old) as storage, Balances(storage) as balances:
        await balances.reached(await _store(storage, *[1] * 30), timeout=30)
        assert (await storage.trim(max_events=10)).deleted == 20
        assert await storage.rebuild(new) == 10
    async with SqliteEventStorage(new) as storage, Balances(storage) as balances:
        await balances.reached(await _store(storage, 1), timeout=30)
        assert await balances.rows(BALANCES) == [("a1", 31, 31)]


DAMAGE = {
    "dropped table": "DROP TABLE balances",
    "another table": "UPDATE pabal_projections SET tables = 'events'",
    "invalid text": "UPDATE balances SET account = CAST(x'FF' AS TEXT)",
    "damaged page": "",
    "damaged positions": "",
}


def _overwrite(path: Path, name: str, content: bytes) -> None:
    """Overwrite the first page of a table or an index."""
    connection = sqlite3.connect(path)
    root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()[0]
    size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    with open(path, "r+b") as file:
        file.seek((root - 1) * size)
        file.write(content)


async def _fill(path: Path, *, trimmed: bool = False) -> None:
    async with SqliteEventStorage(path) as storage, Balances(storage) as balances:
        await balances.reached(await _store(storage, *[1] * 30), timeout=30)
        if trimmed:
            await storage.trim(max_events=10)


@pytest.mark.parametrize("damage", DAMAGE)
async def test_tables_that_cannot_be_copied_are_rebuilt_at_the_next_start(
    old: Path, new: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged read model would prevent saving the log, or look intact in the new file."""
    await _fill(old)
    if DAMAGE[damage]:
        connection = sqlite3.connect(old)
        connection.execute(DAMAGE[damage])
        connection.commit()
        connection.close()
    else:
        _overwrite(old, "balances" if damage == "damaged page" else "pabal_projections", b"\xff" * 64)
    async with SqliteEventStorage(old) as storage:
        assert await storage.rebuild(new) == 30
    whose = "every projection" if damage == "damaged positions" else "projection 'balances'"
    assert f"lacks the tables of {whose}" in caplog.text
    assert "its next start rebuilds them" in caplog.text
    async with SqliteEventStorage(new) as storage, Balances(storage) as balances:
        assert await balances.rows(BALANCES) == [("a1", 30, 30)]
        assert await storage.check() == []


async def test_a_damaged_projection_does_not_prevent_copying_the_others(old: Path, new: Path) -> None:
    """All models would be rebuilt because of one."""
    await _fill(old)
    async with SqliteEventStorage(old) as storage, Ledger(storage) as ledger:
        await ledger.reached(30, timeout=30)
    _overwrite(old, "balances", b"\xff" * 64)
    async with SqliteEventStorage(old) as storage:
        await storage.rebuild(new)
    async with SqliteEventStorage(new) as storage:
        await Ledger(storage).start(progress=_no_build)
        with pytest.raises(AssertionError, match="30 of 30"):
            await Balances(storage).start(progress=_no_build)


async def test_damaged_tables_of_a_trimmed_log_are_reported_as_lost(
    old: Path, new: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator would learn of it only when the application does not start."""
    await _fill(old, trimmed=True)
    _overwrite(old, "balances", b"\xff" * 64)
    async with SqliteEventStorage(old) as storage:
        assert await storage.rebuild(new) == 10
    assert "they cannot be rebuilt because the log begins at position 21" in caplog.text
    async with SqliteEventStorage(new) as storage:
        with pytest.raises(ProjectionError, match="begins at position 21"):
            await Balances(storage).start()


async def test_a_damaged_index_loses_no_row_of_the_copy(old: Path, new: Path) -> None:
    """Read through the index instead of the table, the copy would be empty, and pass as complete."""

    class Covered(Balances):
        name = "covered"
        tables = """
            CREATE TABLE {covered} (account TEXT, amount INTEGER, note TEXT AS (account || amount) STORED);
            CREATE INDEX {covered}_all ON {covered} (account, amount);
        """

        def _add(self, tx: ProjectionTransaction, account: str, amount: int) -> None:
            tx.execute("INSERT INTO {covered} (account, amount) VALUES (?, ?)", (account, amount))

    async with SqliteEventStorage(old) as storage, Covered(storage) as covered:
        await covered.reached(await _store(storage, *[1] * 30), timeout=30)
    _overwrite(old, "covered__1_all", bytes([0x0A, 0, 0, 0, 0, 0x10, 0, 0]))  # a leaf page without entries
    async with SqliteEventStorage(old) as storage:
        assert await storage.check() != []
        await storage.rebuild(new)
    async with SqliteEventStorage(new) as storage:
        covered = Covered(storage)
        await covered.start(progress=_no_build)
        by_index = "SELECT count(*) FROM {covered} INDEXED BY covered__1_all WHERE account = 'a1'"
        assert await covered.rows(by_index) == [(30,)]
        await covered.stop()
        assert await storage.check() == []
