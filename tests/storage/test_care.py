"""Care for a file: trim by size, vacuum, back up, check, rebuild, and bound the write-ahead log."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from pabal import InMemoryEventBus, NotRetryableError, SqliteEventStorage
from pabal.errors import CorruptLogError, StorageUnavailableError
from pabal.ports.storage import LogFilter, ParkedDelivery, Progress
from pabal.storage.sqlite import maintenance, rebuild, schema, wal
from pabal.storage.sqlite.schema import connect_reader
from tests.storage.events import Recorder, Tick, ticks


@pytest.fixture
def single_page_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy one page at a time."""
    monkeypatch.setattr(maintenance, "_STEP_PAGES", 1)


async def test_trim_deletes_the_oldest_events_beyond_max_bytes(path: Path) -> None:
    """Promise 33. A disk fills up by bytes, not by days or counts."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events([Tick("A", n, "x" * 500) for n in range(4000)])
        trimmed = await storage.trim(max_bytes=1 << 20)
        assert 0 < trimmed.deleted < 4000
        left = 4000 - trimmed.deleted
        assert (await storage.trim(max_bytes=1 << 30)).deleted == 0
        assert await storage.head() == 4000
        assert len(await storage.find_events(LogFilter(), limit=5000)) == left
        vacuumed = await storage.vacuum()
        assert vacuumed.used_bytes <= 1.3 * (1 << 20)
    assert path.stat().st_size <= 1.5 * (1 << 20)


async def test_trim_deletes_an_event_beyond_any_one_of_its_limits(path: Path) -> None:
    """If both limits had to be exceeded, an event beyond only one of them would be kept."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(100))
        assert (await storage.trim(max_age=timedelta(days=1), max_events=40)).deleted == 60


async def test_trim_keeps_the_range_of_a_requested_replay(path: Path) -> None:
    """Promise 33. Otherwise a requested replay would find its events deleted."""
    async with SqliteEventStorage(path) as storage:
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, Recorder(), name="clerk", start="beginning")
            await bus.publish_batch(ticks(20))
        await storage.request_replay("clerk", 8, 10)
        assert (await storage.trim(max_events=1)).deleted == 7


async def test_vacuum_frees_trimmed_space_while_events_are_published(path: Path) -> None:
    """A vacuum that locked the file would block every publisher while it runs."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events([Tick("A", n, "x" * 500) for n in range(4000)])
        await storage.trim(max_events=10)
        vacuuming = asyncio.ensure_future(storage.vacuum())
        for number in range(20):
            await storage.store_event(Tick("B", number))
        vacuumed = await vacuuming
        assert vacuumed.freed_bytes > 1 << 20
        assert (await storage.vacuum()).freed_bytes < vacuumed.freed_bytes
        assert await storage.check() == []


async def test_an_abandoned_subscription_is_listed_and_can_be_forgotten(path: Path) -> None:
    """A subscription renamed long ago would keep the whole log for ever, and no call would show which one."""
    async with SqliteEventStorage(path) as storage:
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, Recorder(), name="gone")
            await bus.drain(60)
            assert await storage.list_abandoned(timedelta(0)) == []
        assert [record.name for record in await storage.list_abandoned(timedelta(0))] == ["gone"]
        assert await storage.list_abandoned(timedelta(days=1)) == []
        assert await storage.forget_subscription("gone")


# -- long calls --------------------------------------------------------------------------------------------


async def test_cancelling_a_long_query_interrupts_it(path: Path) -> None:
    """Ctrl-C during a check of a large file would take effect minutes later, and so would closing."""
    begun = threading.Event()

    def count_for_ever(connection: sqlite3.Connection, cancelled: threading.Event) -> None:
        begun.set()
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        )

    async with SqliteEventStorage(path) as storage:
        waiting = asyncio.ensure_future(storage._reader.run_long(count_for_ever))
        await asyncio.to_thread(begun.wait, 30)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await asyncio.gather(*(storage.check() for _ in range(4))) == [[]] * 4


async def test_pages_are_read_while_several_long_calls_run(path: Path) -> None:
    """A backup and a check at once would hold up every query, and deliveries to subscriptions that lag."""
    finished = threading.Event()
    async with SqliteEventStorage(path) as storage:
        long = [storage._reader.run_long(lambda connection, cancelled: finished.wait(30)) for _ in range(3)]
        calls = asyncio.gather(*long)
        await storage.store_events(ticks(3))
        async with asyncio.timeout(20):
            assert await storage.head() == 3
        finished.set()
        assert await calls == [True] * 3


def test_a_cancelled_backup_leaves_no_file(path: Path, tmp_path: Path, single_page_steps: None) -> None:
    """Half a copy would remain under the name of a backup."""
    SqliteEventStorage(path).close()
    cancelled, copied = threading.Event(), tmp_path / "copy.db"

    def cancel(done: int, total: int) -> None:
        assert copied.exists()
        assert 0 < done < total
        cancelled.set()

    connection = connect_reader(path)
    with pytest.raises(maintenance.CopyCancelledError):
        maintenance.copy(connection, copied, cancel, cancelled)
    assert not copied.exists()
    maintenance.copy(connection, copied, lambda done, total: None, threading.Event())
    connection.close()
    assert copied.exists()


def test_a_cancelled_backup_whose_file_cannot_be_deleted_raises_the_cancellation(
    path: Path, tmp_path: Path, single_page_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows a file that a virus scanner has open cannot be removed; that must not hide the reason."""
    SqliteEventStorage(path).close()
    cancelled = threading.Event()

    def fail_to_delete(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "it is being used by another process")

    monkeypatch.setattr(Path, "unlink", fail_to_delete)
    connection = connect_reader(path)
    with pytest.raises(maintenance.CopyCancelledError):
        maintenance.copy(connection, tmp_path / "copy.db", lambda done, total: cancelled.set(), cancelled)
    connection.close()


def test_a_backup_is_a_snapshot_unaffected_by_concurrent_writes(
    path: Path, tmp_path: Path, single_page_steps: None
) -> None:
    """On a busy log, each commit would restart the backup, and it would never end."""
    storage = SqliteEventStorage(path)
    storage.close()
    writer, calls = sqlite3.connect(path, isolation_level=None), []

    def write(done: int, total: int) -> None:
        calls.append(done)
        writer.execute("INSERT INTO meta (key, value) VALUES (?, 1)", (f"step {done}",))

    connection = connect_reader(path)
    maintenance.copy(connection, tmp_path / "copy.db", write, threading.Event())
    connection.close()
    writer.close()
    assert len(calls) > 10
    assert calls == sorted(set(calls))
    copy = sqlite3.connect(tmp_path / "copy.db")
    assert copy.execute("SELECT count(*) FROM meta WHERE key LIKE 'step%'").fetchone() == (0,)
    copy.close()


async def test_progress_callbacks_run_in_the_event_loop(
    path: Path, tmp_path: Path, single_page_steps: None
) -> None:
    """A callback in a thread of the storage could not use objects that belong to the event loop."""
    calls: dict[str, list[tuple[int, int]]] = {"backup": [], "check": [], "trim": []}

    def recorder(name: str) -> Callable[[int, int], None]:
        def record_progress(done: int, total: int) -> None:
            assert asyncio.get_running_loop()
            calls[name].append((done, total))

        return record_progress

    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(2500))
        await storage.backup(tmp_path / "copy.db", progress=recorder("backup"))
        assert await storage.check(progress=recorder("check")) == []
        await storage.trim(max_events=100, progress=recorder("trim"))
    size = (tmp_path / "copy.db").stat().st_size
    assert calls["backup"][-1] == (size, size)
    assert calls["check"] == [(1000, 2500), (2000, 2500), (2500, 2500)]
    assert calls["trim"][-1] == (2400, 2400)
    for reported in calls.values():
        assert reported == sorted(reported)


# -- rebuilding ---------------------------------------------------------------------------------------------


async def test_a_rebuilt_file_keeps_events_cursors_and_dead_letters(path: Path, tmp_path: Path) -> None:
    """A copy without cursors or dead letters would deliver everything again, or forget what was parked."""
    broken = True

    async def handle(event: Tick) -> None:
        if broken and event.number == 3:
            raise NotRetryableError("no 3")
        seen.append(event.number)

    seen: list[int] = []
    async with SqliteEventStorage(path) as storage:
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, handle, name="clerk", on_exhausted="park_key")
            await bus.publish_batch(ticks(200))
            await bus.publish_batch(ticks(5, "ETH", 1001))
        before = [envelope async for envelope in storage.read()]
        assert await storage.rebuild(tmp_path / "new.db") == 205
    broken = False
    async with SqliteEventStorage(tmp_path / "new.db") as storage:
        assert [envelope async for envelope in storage.read()] == before
        assert await storage.check() == []
        assert len(await storage.get_events_by_aggregate("KRW-BTC")) == 200
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, handle, name="clerk", on_exhausted="park_key")
            assert await bus.dead_letters.retry("all") == 1
            await bus.drain(60)
    assert sorted(seen) == [*range(1, 201), *range(1001, 1006)]


async def test_a_rebuilt_file_keeps_the_audit_log_and_gives_no_number_twice(
    path: Path, tmp_path: Path
) -> None:
    """Who discarded dead letter 2 would be forgotten, and 2 could soon be another dead letter."""

    def parked(position: int) -> Progress:
        return Progress("s", 1, 3, 3, parked=(ParkedDelivery(position, "no", (), 5.0, None),))

    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(3))
        await storage.open_subscription("s", "beginning")
        await storage.save_progress([parked(1), parked(2)])
        action = await storage.begin_action("kim", "discard", "2", {})
        await storage.discard_dead_letter(2)
        await storage.finish_action(action, "discarded", succeeded=True)
        listed = await storage.list_actions()
        await storage.rebuild(tmp_path / "new.db")
    async with SqliteEventStorage(tmp_path / "new.db") as storage:
        assert await storage.list_actions() == listed
        await storage.open_subscription("s", "beginning")
        await storage.save_progress([msgspec.structs.replace(parked(3), epoch=2)])
        assert [letter.id for letter in await storage.list_dead_letters()] == [1, 3]


async def test_a_cancelled_rebuild_stops_and_leaves_no_file(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C would otherwise take effect minutes later, and the whole file would still be written."""
    begun, cancelled = threading.Event(), threading.Event()
    index = rebuild._index

    def wait(target: sqlite3.Connection) -> None:
        begun.set()
        cancelled.wait(30)
        index(target)

    monkeypatch.setattr(rebuild, "_index", wait)
    monkeypatch.setattr(rebuild, "STEPS", 1)
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(10))
        rebuilding = asyncio.ensure_future(storage.rebuild(tmp_path / "new.db"))
        await asyncio.to_thread(begun.wait, 30)
        rebuilding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rebuilding
        cancelled.set()
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


async def test_a_rebuild_repairs_damaged_indexes(path: Path, tmp_path: Path) -> None:
    """Promise 38. Otherwise a file with intact events and one damaged index could only be thrown away."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(30))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE streams SET position = position + 1 WHERE version = 7")
    connection.execute("DELETE FROM events_by_type WHERE position = 5")
    connection.commit()
    connection.close()
    async with SqliteEventStorage(path) as storage:
        assert await storage.check() != []
        await storage.rebuild(tmp_path / "new.db")
    async with SqliteEventStorage(tmp_path / "new.db") as storage:
        assert await storage.check() == []
        assert len(await storage.get_events_by_aggregate("KRW-BTC")) == 30
        assert len(await storage.find_events(LogFilter(types=(Tick.event_type,)))) == 30


async def test_rebuilding_a_log_with_an_altered_event_fails_and_leaves_no_file(
    path: Path, tmp_path: Path
) -> None:
    """Promise 38. A new checksum over an altered event would make it look genuine."""
    target = tmp_path / "new.db"
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(30))
        await storage._do(lambda tx: tx.execute("UPDATE events SET payload = x'7b7d' WHERE position = 9"))
        with pytest.raises(CorruptLogError, match="position 9"):
            await storage.rebuild(target)
        assert not list(tmp_path.glob("new.db*"))
        target.write_text("something else")
        with pytest.raises(StorageUnavailableError, match="exists"):
            await storage.rebuild(target)
    assert target.read_text() == "something else"


# -- the write-ahead log ------------------------------------------------------------------------------------


async def test_the_write_ahead_log_is_truncated_once_a_long_reader_ends(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 35. After a long-running reader, the log would keep its largest size until the process ends."""
    monkeypatch.setattr(wal, "LIMIT", 1 << 20)
    monkeypatch.setattr(wal, "PAUSE", 0.0)
    monkeypatch.setattr("pabal.storage.sqlite.writer.PAUSE", 0.02)
    log = Path(f"{path}-wal")
    async with SqliteEventStorage(path) as storage:
        reader = sqlite3.connect(path, isolation_level=None)
        await storage.store_event(Tick("A"))
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        while log.stat().st_size <= 4 << 20:
            await storage.store_events([Tick("A", n, "x" * 1000) for n in range(500)])
        assert await storage.head() > 500
        reader.execute("COMMIT")
        reader.close()
        async with asyncio.timeout(30):
            # Nothing is written any more, so the writer thread must check again by itself.
            while log.stat().st_size > 1 << 20:  # noqa: ASYNC110 - a file announces nothing
                await asyncio.sleep(0.01)
        await storage.store_event(Tick("A"))
        assert await storage.check() == []


async def test_failing_to_truncate_the_write_ahead_log_fails_no_publisher(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 37. Failing to truncate the log fails no publisher; a real problem fails the next write."""
    monkeypatch.setattr(wal, "LIMIT", -1)
    monkeypatch.setattr(wal, "PAUSE", 0.0)

    class FailingConnection:
        def execute(self, sql: str) -> None:
            raise sqlite3.OperationalError("disk I/O error")

    async with SqliteEventStorage(path) as storage:
        await storage.store_event(Tick("A"))
        monkeypatch.setattr(storage._writer._wal, "_connection", FailingConnection())
        await storage.store_event(Tick("A"))
        assert await storage.store_event(Tick("A")) == 3
    assert "could not be truncated" in caplog.text


async def test_rebuilding_a_log_with_a_missing_event_fails(path: Path, tmp_path: Path) -> None:
    """Promise 38. The copy would hide that an event is missing."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(30))
        await storage._do(lambda tx: tx.execute("DELETE FROM events WHERE position = 9"))
        with pytest.raises(CorruptLogError, match="position 9"):
            await storage.rebuild(tmp_path / "new.db")


async def test_opening_a_file_without_indexed_upto_raises_a_corrupt_log_error(path: Path) -> None:
    """Promise 38. Found by fuzzing: it raised an error about None from deep inside."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(3))
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM meta WHERE key = 'indexed_upto'")
    connection.commit()
    connection.close()
    with pytest.raises(CorruptLogError, match="lacks indexed_upto"):
        SqliteEventStorage(path)


async def test_a_rebuild_that_fails_on_a_full_disk_leaves_no_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt, when there is room, would fail because of the empty file left behind."""
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    target = path.with_name("new.db")
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(3))
        with monkeypatch.context() as patch:
            patch.setattr(schema, "_migrate", _raising(full))
            with pytest.raises(StorageUnavailableError, match="full"):
                await storage.rebuild(target)
        assert not target.exists()
        assert await storage.rebuild(target) == 3


def _raising(error: Exception) -> Callable[[object], None]:
    def fail(connection: object) -> None:
        raise error

    return fail
