"""Schema versions: a migrated file equals a new one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pabal import SqliteEventStorage, StorageError
from pabal.storage.sqlite import schema
from tests.storage.events import ticks

OLD_SCHEMAS = Path(__file__).parent / "schemas"
"""``vN.sql``: the schema script of each released version, never changed afterwards."""


def describe(path: Path) -> dict[str, object]:
    connection = sqlite3.connect(path)
    try:
        objects = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall()
        return {
            "application_id": connection.execute("PRAGMA application_id").fetchone(),
            "user_version": connection.execute("PRAGMA user_version").fetchone(),
            "meta": connection.execute("SELECT key, value FROM meta ORDER BY key").fetchall(),
            # A migration may create the same objects in another order and with other line breaks.
            "objects": sorted((*names, " ".join((sql or "").split())) for *names, sql in objects),
        }
    finally:
        connection.close()


def create_old_file(path: Path, version: int) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript((OLD_SCHEMAS / f"v{version}.sql").read_text("utf-8"))
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


@pytest.mark.parametrize("version", range(1, schema.SCHEMA_VERSION + 1))
def test_a_migrated_schema_equals_a_fresh_one(tmp_path: Path, version: int) -> None:
    """A column that only new files have would break every existing file."""
    SqliteEventStorage(tmp_path / "fresh.db").close()
    create_old_file(tmp_path / "old.db", version)
    SqliteEventStorage(tmp_path / "old.db").close()
    assert describe(tmp_path / "old.db") == describe(tmp_path / "fresh.db")


def test_every_schema_version_has_its_script_and_its_migration() -> None:
    """Without a migration from the last version, users could no longer open their files."""
    assert sorted(p.name for p in OLD_SCHEMAS.iterdir()) == [
        f"v{version}.sql" for version in range(1, schema.SCHEMA_VERSION + 1)
    ]
    assert sorted(schema.MIGRATIONS) == list(range(1, schema.SCHEMA_VERSION))


async def test_a_migration_keeps_the_events_and_runs_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests the next schema version in advance, with a migration made up for this test."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(3))
    calls: list[str] = []
    version = schema.SCHEMA_VERSION

    def add_column(connection: sqlite3.Connection) -> None:
        calls.append("to the next")
        connection.execute("ALTER TABLE events ADD COLUMN shard INTEGER")

    monkeypatch.setattr(schema, "SCHEMA_VERSION", version + 1)
    monkeypatch.setitem(schema.MIGRATIONS, version, add_column)
    for _ in range(2):
        async with SqliteEventStorage(path) as storage:
            assert len(await storage.get_events_by_aggregate("KRW-BTC", "symbol")) == 3
    assert calls == ["to the next"]


async def test_a_failed_migration_leaves_the_file_at_its_old_version(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file migrated halfway would have no valid version."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(3))
    before = describe(path)

    def fail_halfway(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE events ADD COLUMN shard INTEGER")
        raise sqlite3.DatabaseError("malformed")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
        patch.setitem(schema.MIGRATIONS, schema.SCHEMA_VERSION - 1, fail_halfway)
        with pytest.raises(StorageError):
            SqliteEventStorage(path)
    assert describe(path) == before
    async with SqliteEventStorage(path) as storage:
        assert await storage.head() == 3


async def test_a_migration_that_sqlite_rolled_back_raises_the_original_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk SQLite rolls back by itself; a second ROLLBACK would fail and hide the cause."""
    create_old_file(path, 1)
    before = describe(path)

    def fill_the_disk(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setitem(schema.MIGRATIONS, 1, fill_the_disk)
    with pytest.raises(StorageError, match="disk is full"):
        SqliteEventStorage(path)
    assert describe(path) == before
