"""Faults in the writer thread: a failing disk, a locked file, a storage that is being closed."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pabal import ConcurrencyError, CorruptLogError, SqliteEventStorage
from pabal.errors import StorageClosedError, StorageUnavailableError, UsageError
from pabal.ports.storage import Committed
from pabal.storage.sqlite import group_commit, writer
from tests.storage.events import Tick, ticks
from tests.storage.tracing import Gate, Tracer


def full_disk() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


async def run_in_one_group(tracer: Tracer, storage: SqliteEventStorage, *work: Any) -> list[Any]:
    """Run several calls in one group of the writer, and return their results or errors."""
    (connection,) = tracer.connections
    hook, gate = connection.before, Gate("COMMIT")
    connection.before = gate
    first = asyncio.ensure_future(storage.store_event(Tick("first")))
    await asyncio.to_thread(gate.wait_until_reached)
    tasks = [asyncio.ensure_future(one) for one in work]
    await asyncio.sleep(0)  # each runs up to its await, so all wait behind the first commit
    connection.before = hook
    gate.open()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


def fail_at(beginning: str, skip: int = 0) -> Callable[[str], None]:
    """Return a hook that raises "disk full" at such a statement, after ``skip`` of them succeeded."""
    left = skip

    def check(sql: str) -> None:
        nonlocal left
        if sql.startswith(beginning):
            left -= 1
            if left < 0:
                raise full_disk()

    return check


@pytest.mark.parametrize("careful", [False, True])
async def test_a_disk_error_while_a_group_is_written_fails_the_whole_group(
    path: Path, monkeypatch: pytest.MonkeyPatch, careful: bool
) -> None:
    """Promise 37. After a fault, nothing that SQLite reported about the other jobs can be trusted."""
    tracer = Tracer(monkeypatch)
    async with SqliteEventStorage(path) as storage:
        work: list[Any] = [storage.store_event(Tick("A")), storage.store_events(ticks(2, "B"))]
        if careful:
            # A function given to transact() must run only once, so its group has savepoints from the start.
            work.append(storage.transact(lambda tx: tx.store_event(Tick("C"))))
        tracer.connections[0].before = fail_at("INSERT INTO events", skip=int(careful))
        results = await run_in_one_group(tracer, storage, *work)
        assert {type(result) for result in results} == {StorageUnavailableError}
        tracer.connections[0].before = lambda sql: None
        assert await storage.store_event(Tick("D")) == 2, "of the group nothing was stored"
        assert [e.stream_version async for e in storage.read()] == [1, 1]


async def test_a_rejected_append_keeps_its_own_error_when_the_commit_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the error were a full disk instead of the conflict, the caller would retry the same append later."""
    tracer = Tracer(monkeypatch)
    async with SqliteEventStorage(path) as storage:
        work = (
            storage.store_event(Tick("A")),
            storage.append("symbol", "B", [Tick("B")], expected_version=7),
        )
        tracer.connections[0].before = fail_at("COMMIT")
        stored, refused = await run_in_one_group(tracer, storage, *work)
        assert (type(stored), type(refused)) == (StorageUnavailableError, ConcurrencyError)


async def test_a_rolled_back_transaction_leaves_no_gap_in_the_versions_of_its_group(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version computed from the undone job would leave a hole in the stream for ever."""
    tracer = Tracer(monkeypatch)

    def store_and_raise(tx: Any) -> None:
        tx.store_event(Tick("A", 99))
        raise ValueError("not after all")

    async with SqliteEventStorage(path) as storage:
        results = await run_in_one_group(
            tracer,
            storage,
            storage.append("symbol", "A", [Tick("A", 1)], expected_version=0),
            storage.transact(store_and_raise),
            storage.append("symbol", "A", [Tick("A", 2)], expected_version=1),
        )
        assert results[0] == [2]
        assert isinstance(results[1], ValueError)
        assert results[2] == [3]
        history = await storage.read_history("symbol", "A")
        assert [row.stream_version for row in history] == [1, 2]


async def test_storing_into_a_locked_file_raises_and_succeeds_once_it_is_free(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 36. A process that hangs while it holds the lock must not hang all others."""
    monkeypatch.setattr(group_commit, "_LONGEST_WAIT", 0.0)
    async with SqliteEventStorage(path) as storage:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailableError, match="another process kept it locked"):
            await storage.store_event(Tick("A"))
        other.execute("ROLLBACK")
        other.close()
        assert await storage.store_event(Tick("A")) == 1


async def test_deleted_bookkeeping_stops_writes_until_it_is_restored(
    path: Path,
) -> None:
    """Guessed versions would stay wrong in the log for ever."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_event(Tick("A"))
        other = sqlite3.connect(path, isolation_level=None)
        kept = other.execute("SELECT * FROM meta").fetchall()
        other.execute("DELETE FROM meta")
        for _ in range(2):
            with pytest.raises(CorruptLogError, match="indexed_upto"):
                await storage.store_event(Tick("A"))
        places = ",".join("?" * len(kept[0]))
        other.executemany(f"INSERT INTO meta VALUES ({places})", kept)
        other.close()
        assert await storage.append("symbol", "A", [Tick("A")], expected_version=1) == [2]


async def test_large_batches_are_committed_in_separate_groups(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a group took the whole queue, a publisher would wait for the end of another one's import."""
    monkeypatch.setattr(writer, "_GROUP_ROWS", 20)
    tracer = Tracer(monkeypatch)
    async with SqliteEventStorage(path) as storage:
        results = await run_in_one_group(
            tracer, storage, *(storage.store_events(ticks(500, symbol)) for symbol in "ABC")
        )
        assert [len(result) for result in results] == [500] * 3
        assert tracer.connections[0].commits == 4


# -- closing ------------------------------------------------------------------------------------------------


async def test_close_stores_an_event_accepted_in_the_same_loop_iteration(path: Path) -> None:
    """Jobs of one loop iteration go to the writer together; those not handed over yet would be lost."""
    storage = SqliteEventStorage(path)
    await asyncio.gather(*(storage.store_event(tick) for tick in ticks(3)))
    publishing = asyncio.ensure_future(storage.store_event(Tick("A")))
    await asyncio.sleep(0)
    storage.close()
    assert await publishing == 4


async def test_a_publisher_that_loses_the_race_against_close_raises_storage_closed(path: Path) -> None:
    """A job queued after the thread's end would never be answered, and its publisher would hang."""
    storage = SqliteEventStorage(path)

    class CloseFirst:
        """Replace the writer's lock, and let ``close`` take it first."""

        def __init__(self, lock: Any) -> None:
            self.lock = lock

        def __enter__(self) -> None:
            storage._writer._lock = self.lock
            closing = threading.Thread(target=storage.close)
            closing.start()
            closing.join()
            self.lock.acquire()

        def __exit__(self, *error: object) -> None:
            self.lock.release()

    storage._writer._lock = CloseFirst(storage._writer._lock)  # type: ignore[assignment]
    with pytest.raises(StorageClosedError):
        await storage.store_event(Tick("A"))
    with SqliteEventStorage(path) as again:
        assert await again.head() == 0


async def test_closing_a_storage_from_its_writer_thread_raises(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The writer thread would wait for its own end, and no caller would get an answer any more."""
    storage = SqliteEventStorage(path)

    def close_on_commit(batch: Committed) -> None:
        storage.close()

    remove = storage.add_listener(close_on_commit)
    with pytest.raises(UsageError, match="close"):
        await storage.transact(lambda tx: storage.close())
    assert await storage.store_event(Tick("A")) == 1
    assert "a commit listener" in caplog.text
    remove()
    assert await storage.store_event(Tick("A")) == 2
    await storage.aclose()
