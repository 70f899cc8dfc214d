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
async def test_what_cannot_be_found_again_is_not_acknowledged(
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


async def test_readers_make_no_empty_log_in_the_place_of_one_that_is_gone(path: Path) -> None:
    """The log would seem to be empty, and the next start would silently begin a new one."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(3))
        delete(path)
        with pytest.raises(StorageUnavailableError, match=r"log\.db: unable to open"):
            await storage.head()
        assert not path.exists()


async def test_a_file_that_is_put_back_is_gone_on_with(path: Path, tmp_path: Path) -> None:
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
