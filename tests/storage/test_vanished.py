"""A file that is moved away, deleted or replaced while it is open."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.errors import StorageUnavailableError
from tests.storage.events import Recorder, Tick, ticks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing open can be moved or deleted there")


def delete(path: Path) -> None:
    for file in path.parent.glob("log.db*"):
        file.unlink()


def replace(path: Path) -> None:
    delete(path)
    SqliteEventStorage(path).close()


@pytest.mark.parametrize("vanish", [delete, replace])
async def test_publishing_to_a_deleted_or_replaced_file_raises(
    path: Path, vanish: Callable[[Path], None]
) -> None:
    """The events would be written into a file without a name, and be lost when the process ends."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(3))
        vanish(path)
        gone = pytest.raises(StorageUnavailableError, match="moved or deleted while open")
        with gone as caught:
            await storage.store_event(Tick("A", 9))
        assert str(path) in str(caught.value)
        with gone:
            await storage.transact(lambda tx: tx.store_event(Tick("A", 9)))
    async with SqliteEventStorage(path) as storage:
        assert await storage.head() == 0
        assert await storage.store_event(Tick("A", 9)) == 1


async def test_reading_a_deleted_file_raises_and_does_not_create_it_again(path: Path) -> None:
    """The log would seem to be empty, and the next start would silently begin a new one."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(3))
        delete(path)
        with pytest.raises(StorageUnavailableError, match=r"log\.db: unable to open"):
            await storage.head()
        assert not path.exists()


async def test_publishing_continues_after_a_moved_file_is_put_back(path: Path, tmp_path: Path) -> None:
    """A mount that is gone for a moment must not require a restart, or lose acknowledged events."""
    seen = Recorder()
    away = tmp_path / "away"
    away.mkdir()
    async with SqliteEventStorage(path) as storage:
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, seen, name="seen")
            await bus.publish(Tick("A", 1))
            shutil.move(path, away / path.name)
            with pytest.raises(StorageUnavailableError, match="put it back"):
                await bus.publish(Tick("A", 2))
            shutil.move(away / path.name, path)
            await bus.publish(Tick("A", 3))
            await bus.drain(60)
        assert seen.numbers == [1, 3]
        assert await storage.check() == []
