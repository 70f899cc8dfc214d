"""The failed attempts of deliveries that finally succeeded: how a file keeps them, and when it drops them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pabal import SqliteEventStorage, StorageError
from pabal.ports.inspection import DeliveryRecord
from pabal.ports.storage import AttemptFailure, Cursor, PendingRetry, Progress, RecoveredDelivery
from pabal.storage.sqlite import schema
from pabal.testing.conformance.subscriptions import failure
from tests.storage.events import ticks
from tests.storage.test_schema import create_old_file

FAILURES: tuple[AttemptFailure, ...] = (failure(1),)


async def recover(storage: SqliteEventStorage, *positions: int, name: str = "sub") -> Cursor:
    """Save that deliveries at some positions succeeded after failures, for a subscription at the head."""
    cursor = await storage.open_subscription(name, "now")
    assert cursor is not None
    recovered = tuple(RecoveredDelivery(position, 2, FAILURES, 5.0) for position in positions)
    at = cursor.watermark
    change = Progress(name, cursor.epoch, at, at, cleared=positions, recovered=recovered)
    assert await storage.save_progress([change]) == []
    return cursor


async def attempts_at(storage: SqliteEventStorage, *positions: int) -> list[int]:
    return [(await storage.deliveries_at(position))[0].attempts for position in positions]


def count_recoveries(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM recoveries").fetchone()[0])
    finally:
        connection.close()


async def test_clearing_a_retry_and_recording_its_history_is_atomic(path: Path) -> None:
    """A crash in between would lose the history, or show one of a delivery that is still to be retried."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(2))
        cursor = await storage.open_subscription("sub", "beginning")
        assert cursor is not None
        retry = PendingRetry(1, 1, 5.0, FAILURES)
        await storage.save_progress([Progress("sub", cursor.epoch, 0, 2, (1,), (retry,))])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON recoveries BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
        done = RecoveredDelivery(1, 2, FAILURES, 6.0)
        change = Progress("sub", cursor.epoch, 2, 2, cleared=(1,), recovered=(done,))
        with pytest.raises((StorageError, sqlite3.Error)):
            await storage.save_progress([change])
        [shown] = await storage.deliveries_at(1)
        assert shown == DeliveryRecord("sub", "retrying", 1, 5.0, FAILURES)
        [record] = await storage.list_subscriptions()
        assert (record.watermark, record.retries) == (0, 1)
        other.execute("DROP TRIGGER broken")
        other.close()
        assert await storage.save_progress([change]) == []
        [shown] = await storage.deliveries_at(1)
        assert shown == DeliveryRecord("sub", "finished", 2, None, FAILURES, finished_at=6.0)
        [record] = await storage.list_subscriptions()
        assert (record.watermark, record.retries) == (2, 0)


async def test_trim_deletes_the_recovery_history_of_trimmed_events(path: Path) -> None:
    """Promise 33. Otherwise a log trimmed every day would keep the errors of all past days."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(10))
        await recover(storage, 3, 7, 8)
        assert count_recoveries(path) == 3
        assert (await storage.trim(max_events=3)).deleted == 7
        assert count_recoveries(path) == 1
        assert await attempts_at(storage, 3, 7, 8) == [0, 0, 2]


async def test_a_recovery_of_a_trimmed_event_is_not_recorded(path: Path) -> None:
    """No query could return its history, and no trim would ever delete it: its position is trimmed."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(10))
        await storage.trim(max_events=3)
        await recover(storage, 2, 9)
        assert count_recoveries(path) == 1
        assert await attempts_at(storage, 9) == [2]


async def test_forgetting_a_subscription_deletes_only_its_own_recovery_history(path: Path) -> None:
    """The rows of a renamed subscription would stay until 10,000 others replace them."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(4))
        for name in ("gone", "kept"):
            cursor = await recover(storage, 2, 3, name=name)
            await storage.release_subscription(name, cursor.epoch)
        assert await storage.forget_subscription("gone")
        assert count_recoveries(path) == 2
        [shown] = await storage.deliveries_at(2)
        assert (shown.subscription, shown.attempts) == ("kept", 2)


async def test_a_rebuild_copies_the_recovery_history(path: Path, tmp_path: Path) -> None:
    """Repairing a file would lose the history that one may want to look up."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(4))
        await recover(storage, 2, 3)
        before = [await storage.deliveries_at(position) for position in range(1, 5)]
        await storage.rebuild(tmp_path / "new.db")
    async with SqliteEventStorage(tmp_path / "new.db") as storage:
        assert [await storage.deliveries_at(position) for position in range(1, 5)] == before
        await storage.store_events(ticks(1, first=5))
        await recover(storage, 5)  # numbered after those that were copied
        assert await attempts_at(storage, 1, 2, 3, 5) == [0, 2, 2, 2]


async def test_a_migrated_file_of_schema_1_records_recoveries(path: Path) -> None:
    """There are files that were created before this table existed."""
    create_old_file(path, 1)
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(2))
        await recover(storage, 2)
        assert await attempts_at(storage, 1, 2) == [0, 2]
        assert await storage.check() == []
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == schema.SCHEMA_VERSION
    connection.close()
