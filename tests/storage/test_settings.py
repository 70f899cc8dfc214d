"""An application's own statements must leave no trace on the shared connections."""

from __future__ import annotations

from pathlib import Path

import pytest

from pabal import SqliteEventStorage
from pabal.errors import UsageError
from tests.storage.events import ticks


async def test_a_sqlite_cursor_with_unread_rows_does_not_block_publishing(tmp_path: Path) -> None:
    """Otherwise one forgotten fetchall() fails every publish once another process has written."""
    path = tmp_path / "log.db"
    async with SqliteEventStorage(path) as mine, SqliteEventStorage(path) as other:
        await mine.store_events(ticks(300))
        cursor = await mine.transact(lambda tx: tx.execute("SELECT position FROM events"))
        await other.store_events(ticks(1))
        assert await mine.store_events(ticks(1)) == [302]
        del cursor


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA query_only = ON",
        "pragma main.synchronous(0)",
        "/* */ PRAGMA user_version=99",
        "PRAGMA hard_heap_limit=1000",
        'PRAGMA "query_only" = ON',
        "PRAGMA/**/main . [query_only] -- now\n(1)",
        "\ufeffPRAGMA'main'.query_only=1",
        "PRAGMA max_page_count = 10",
        "PRAGMA wal_autocheckpoint(0)",
        "PRAGMA checkpoint_fullfsync = OFF",
        "PRAGMA wal_checkpoint",
    ],
)
async def test_transact_rejects_a_pragma_that_changes_settings(tmp_path: Path, sql: str) -> None:
    """Otherwise one function could fail all later writes of the process, or make the file unusable."""
    async with SqliteEventStorage(tmp_path / "log.db") as storage:
        with pytest.raises(UsageError, match="settings"):
            await storage.transact(lambda tx: tx.execute(sql))
        assert await storage.store_events(ticks(1)) == [1]
        columns = await storage.transact(lambda tx: tx.execute("PRAGMA table_info(events)").fetchall())
        assert columns


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA query_only = OFF",
        "PRAGMA`query_only`=OFF",
        "PRAGMA query_only/**/(0)",
        "PRAGMA soft_heap_limit(1000)",
        "PRAGMA main.wal_checkpoint",
        "PRAGMA 'wal_checkpoint'(TRUNCATE)",
        "BEGIN",
        " SAVEPOINT s",
        "ATTACH ':memory:' AS x",
    ],
)
async def test_query_rejects_anything_but_a_select(tmp_path: Path, sql: str) -> None:
    """Otherwise a later query could delete the log, or reads would see no new events."""
    async with SqliteEventStorage(tmp_path / "log.db") as storage:
        with pytest.raises(UsageError, match="one SELECT"):
            await storage.query(sql)
        with pytest.raises(UsageError, match="one SELECT"):
            await storage.query("WITH a AS (SELECT 1) DELETE FROM events")
        await storage.store_events(ticks(2))
        assert await storage.head() == 2
        assert await storage.query("WITH a AS (SELECT 1) SELECT * FROM a") == [(1,)]


async def test_a_query_of_a_table_that_does_not_exist_says_only_that(tmp_path: Path) -> None:
    """Whoever mistypes a name would look for what is wrong with SELECT, or change to transact()."""
    async with SqliteEventStorage(tmp_path / "log.db") as storage:
        with pytest.raises(UsageError, match=r"cannot be run: no such table: voulme$"):
            await storage.query("SELECT * FROM voulme")


async def test_a_query_with_many_comments_is_parsed_quickly(tmp_path: Path) -> None:
    """Each comment doubled the time, so a generated statement with thirty comments took hours."""
    async with SqliteEventStorage(tmp_path / "log.db") as storage:
        assert await storage.query("/* a */ -- b\n" * 200 + "SELECT 1") == [(1,)]


async def test_a_backup_named_like_sqlites_memory_database_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a backup is reported as done that cannot be restored."""
    monkeypatch.chdir(tmp_path)
    async with SqliteEventStorage("log.db") as storage:
        await storage.store_events(ticks(2))
        await storage.backup(":memory:")
    async with SqliteEventStorage(tmp_path / ":memory:") as copy:
        assert await copy.head() == 2


async def test_a_rebuilt_log_named_like_sqlites_memory_database_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the error blames the file system, although SQLite has interpreted the name in its own way."""
    monkeypatch.chdir(tmp_path)
    async with SqliteEventStorage("log.db") as storage:
        await storage.store_events(ticks(2))
        assert await storage.rebuild(":memory:") == 2
    async with SqliteEventStorage(tmp_path / ":memory:") as copy:
        assert await copy.head() == 2
