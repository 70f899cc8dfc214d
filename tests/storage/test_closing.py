"""Closing a storage releases every file, so that the database can be moved or deleted."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.errors import NotAPabalDatabaseError, StorageClosedError, StorageUnavailableError
from pabal.storage.sqlite.schema import connect_reader
from pabal.storage.sqlite.writer import Writer
from tests.bus.support import spin_loop
from tests.descriptors import open_files
from tests.storage.events import Recorder, Tick, ticks

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc/self/fd")


async def use(storage: SqliteEventStorage) -> None:
    """Use the storage so that every kind of connection is open."""
    seen = Recorder()
    async with InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, seen, name="s", start="beginning")
        await bus.publish_batch(ticks(10))
        await bus.drain(timeout=60)
    await asyncio.gather(*(storage.head() for _ in range(20)))
    storage.poll_head()


@linux
async def test_close_leaves_no_open_file_extra_file_or_thread(path: Path) -> None:
    """On Windows an open file cannot be deleted; on Linux the test looks at the open descriptors."""
    threads = set(threading.enumerate())
    storage = SqliteEventStorage(path)
    await use(storage)
    assert open_files(path.parent) != []
    storage.close()
    assert open_files(path.parent) == []
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    path.unlink()
    assert not [
        thread for thread in threading.enumerate() if thread not in threads and "pabal" in thread.name
    ]


async def test_an_append_during_a_close_in_another_thread_is_stored_or_refused(path: Path) -> None:
    """``aclose`` closes in a thread while the loop goes on; an append lost in between would never return."""
    storage = SqliteEventStorage(path)
    first = storage.append_events(ticks(1))
    closing = threading.Thread(target=storage.close)

    class Buffered(dict[Any, Any]):
        def get(self, *key: Any) -> Any:
            found = super().get(*key)
            closing.start()
            closing.join(0.2)  # it ends at once unless it waits for this append
            return found

    storage._writer._buffered = Buffered(storage._writer._buffered)
    storage._writer._last_group = 10
    second = storage.append_events(ticks(1))
    async with asyncio.timeout(20):
        assert (await first, await second) == ([1], [2])
    closing.join()


@linux
async def test_a_file_that_cannot_be_opened_leaks_no_descriptor(path: Path) -> None:
    """A program that retries, or reports the error and continues, would run out of descriptors."""
    path.write_bytes(b"SQLite format 3\0" + bytes(500))
    for _ in range(3):
        with pytest.raises(Exception, match=r"log\.db"):
            SqliteEventStorage(path)
    assert open_files(path.parent) == []


@linux
async def test_opening_and_closing_fifty_times_leaks_nothing(path: Path) -> None:
    """If each opening left a descriptor, thread or file behind, a long-lived program would fail."""
    threads = set(threading.enumerate())
    for number in range(50):
        async with SqliteEventStorage(path) as storage:
            await storage.store_event(Tick("A", number))
            await storage.head()
    assert open_files(path.parent) == []
    assert not [
        thread for thread in threading.enumerate() if thread not in threads and "pabal" in thread.name
    ]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


async def test_closing_twice_is_harmless(path: Path) -> None:
    """Calling ``close()`` on a storage inside ``async with`` must not raise."""
    storage = SqliteEventStorage(path)
    storage.close()
    await storage.aclose()
    storage.close()


async def test_closing_a_storage_lets_running_queries_finish(path: Path) -> None:
    """Running queries must end with their result before their connections are closed."""
    storage = SqliteEventStorage(path)
    await storage.store_events(ticks(2000))
    reads = [asyncio.ensure_future(storage.read_page(0, limit=2000)) for _ in range(10)]
    await asyncio.sleep(0)
    await storage.aclose()
    results = await asyncio.gather(*reads)
    assert {page.upto for page in results} == {2000}


async def test_starting_a_bus_on_a_closed_storage_raises_storage_closed(path: Path) -> None:
    """The error was "I/O operation on closed file", about a file that users do not know."""
    storage = SqliteEventStorage(path)
    storage.close()
    bus = InMemoryEventBus(storage)
    with pytest.raises(StorageClosedError, match=path.name):
        await bus.start()
    storage.open()
    await bus.start()
    await bus.stop()
    storage.close()


@pytest.mark.parametrize("other", ["open", "close"])
async def test_open_and_close_wait_for_an_opening_in_another_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """A bus whose ``start()`` timed out is still opening its file when it is started again or stopped."""
    threads = set(threading.enumerate())
    opening, go_on, begun = threading.Event(), threading.Event(), threading.Event()
    starts: list[Writer] = []
    start = Writer.start

    def slow_start(self: Writer) -> None:
        starts.append(self)
        opening.set()
        assert go_on.wait(60)
        start(self)

    def open_or_close() -> None:
        begun.set()
        getattr(storage, other)()

    storage = SqliteEventStorage(path)
    await storage.store_event(Tick("KRW-BTC", 1))
    storage.close()
    monkeypatch.setattr(Writer, "start", slow_start)
    first = asyncio.create_task(asyncio.to_thread(storage.open))
    await asyncio.to_thread(opening.wait, 60)
    second = asyncio.create_task(asyncio.to_thread(open_or_close))
    await asyncio.to_thread(begun.wait, 60)
    await spin_loop()
    go_on.set()
    await asyncio.gather(first, second)
    assert len(starts) == 1
    if other == "open":
        assert await storage.head() == 1
        storage.close()
    with pytest.raises(StorageClosedError):
        await storage.head()
    assert not [thread for thread in set(threading.enumerate()) - threads if "pabal" in thread.name]


async def test_a_storage_that_fails_to_reopen_stays_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 37. Publishing would wait for ever for a thread that never started, and closing would raise."""

    def fail(self: Writer) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    storage = SqliteEventStorage(path)
    await storage.store_event(Tick("KRW-BTC", 1))
    storage.close()
    with monkeypatch.context() as broken:
        broken.setattr(Writer, "start", fail)
        with pytest.raises(StorageUnavailableError):
            storage.open()
    with pytest.raises(StorageClosedError):
        await storage.store_event(Tick("KRW-BTC", 2))
    storage.close()
    storage.open()
    assert await storage.store_event(Tick("KRW-BTC", 3)) == 2
    storage.close()


@linux
async def test_polling_after_close_opens_the_file_no_more(path: Path) -> None:
    """A bus polls until it is stopped: its file would stay open, and Windows could not delete it."""
    storage = SqliteEventStorage(path)
    assert storage.poll_head() is None
    await storage.aclose()
    assert storage.poll_head() is None
    assert open_files(path) == []


@linux
def test_a_file_that_cannot_be_read_is_not_left_open(path: Path) -> None:
    """Each attempt would leave a connection open for as long as its error is kept, as a log does."""
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(NotAPabalDatabaseError) as kept:
        connect_reader(path)
    assert kept.value.__traceback__ is not None, "what it refers to must still exist"
    assert open_files(path) == []
