"""Projections where the disk is full, and where they are waited for in vain."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pabal import SqliteEventStorage
from pabal.errors import StorageUnavailableError
from pabal.eventsourcing import Projection, ProjectionTransaction, projects
from tests.eventsourcing.samples import Stray


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteEventStorage]:
    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        yield storage


class Bulky(Projection):
    tables = """
        -- what takes much room; /* all of it */
        CREATE TABLE {bulky} (number INTEGER NOT NULL, padding TEXT NOT NULL);  -- for each event
    """

    @projects(Stray)
    def _stray(self, event: Stray, tx: ProjectionTransaction) -> None:
        tx.execute("INSERT INTO {bulky} VALUES (?, ?)", (event.number, "x" * event.number))


async def _limit(storage: SqliteEventStorage, pages: int) -> None:
    """Have SQLite find the disk full after some pages more."""

    def limit(tx: Any) -> None:
        used = tx.execute("PRAGMA page_count").fetchone()[0]
        tx.execute(f"PRAGMA max_page_count = {used + pages}").fetchone()

    await storage.transact(limit)


async def test_a_projection_goes_on_once_a_full_disk_has_room_again(
    storage: SqliteEventStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 37. It would stop for good, and blame the application's handler for it."""
    tried_again = asyncio.Event()

    def hear(record: logging.LogRecord) -> bool:
        if "tries again" in record.getMessage():
            tried_again.set()
        return True

    caplog.handler.addFilter(hear)
    async with Bulky(storage) as bulky:
        await bulky.reached(await storage.store_event(Stray(1)), timeout=30)
        await _limit(storage, 8)
        position = await storage.store_event(Stray(500_000))
        async with asyncio.timeout(30):
            await tried_again.wait()
        assert bulky.is_running
        await _limit(storage, 1_000_000)
        await bulky.reached(position, timeout=30)
        assert await bulky.rows("SELECT number FROM {bulky}") == [(1,), (500_000,)]


async def test_a_full_disk_is_told_of_as_such_where_tables_are_made(storage: SqliteEventStorage) -> None:
    """An operator would look for a mistake in the tables."""
    await storage.store_events([Stray(500_000)])
    await _limit(storage, 8)
    with pytest.raises(StorageUnavailableError, match="full"):
        await Bulky(storage).start()
    await _limit(storage, 1_000_000)
    async with Bulky(storage) as bulky:
        assert await bulky.rows("SELECT number FROM {bulky}") == [(500_000,)]


async def test_waits_that_are_given_up_leave_nothing(storage: SqliteEventStorage) -> None:
    """A page that asks for a position nobody reaches would fill the memory of a quiet process."""
    async with Bulky(storage) as bulky:
        for _ in range(10):
            with pytest.raises(TimeoutError):
                await bulky.reached(1_000, timeout=0)
        waiting = asyncio.create_task(bulky.reached(1_000))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert bulky._waiting == []


def test_statements_that_differ_with_each_event_are_not_all_kept() -> None:
    """A method that writes values into its statements would fill the memory of a long life."""
    known: dict[str, str] = {}
    with closing(sqlite3.connect(":memory:")) as connection:
        Bulky.model.tables.create(connection, "")
        tx = ProjectionTransaction(connection, Bulky.model.tables, "", known)
        for number in range(3_000):
            tx.execute(f"INSERT INTO {{bulky}} VALUES ({number}, '')")
        assert tx.execute("SELECT count(*) FROM {bulky}").fetchone() == (3_000,)
    assert len(known) <= 1_000
