"""The writer thread commits all waiting appends together, and resolves none before its commit."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pabal import DuplicateEventError, SqliteEventStorage, StorageError
from pabal.domain.registry import registry
from pabal.errors import InvalidEventError, StorageUnavailableError
from pabal.ports.storage import Committed
from pabal.storage.sqlite.statements import COLUMNS
from tests.storage.events import Note, Tick, ticks
from tests.storage.tracing import Gate, Tracer


async def start_publishing(count: int, storage: SqliteEventStorage) -> list[asyncio.Task[int]]:
    tasks = [asyncio.ensure_future(storage.store_event(tick)) for tick in ticks(count)]
    await asyncio.sleep(0)  # each runs up to its await, so all of them are queued
    return tasks


async def test_a_single_publisher_is_committed_without_waiting_for_others(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that waited for more appends would delay a single publisher."""
    tracer = Tracer(monkeypatch)
    async with SqliteEventStorage(path) as storage:
        (connection,) = tracer.connections
        for number in range(1, 6):
            assert await storage.store_event(Tick("A", number)) == number
            assert connection.commits == number


async def test_a_hundred_waiting_publishers_share_one_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without grouping, a hundred publishers would cost a hundred syncs."""
    tracer = Tracer(monkeypatch)
    async with SqliteEventStorage(path) as storage:
        (connection,) = tracer.connections
        gate = connection.before = Gate("COMMIT")
        first = asyncio.ensure_future(storage.store_event(Tick("first")))
        await asyncio.to_thread(gate.wait_until_reached)
        tasks = await start_publishing(100, storage)  # all arrive while the first commit is syncing
        gate.open()
        assert await first == 1
        assert await asyncio.gather(*tasks) == list(range(2, 102))
        assert connection.commits == 2


async def test_a_batch_of_a_hundred_events_takes_at_most_two_insert_statements(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further statement may wait for a busy event loop: a commit of 100 rows took 123 ms."""
    tracer = Tracer(monkeypatch)
    async with SqliteEventStorage(path) as storage:
        (connection,) = tracer.connections
        await storage.store_events(ticks(100))
        rows = [sql.count("?") // COLUMNS for sql in connection.log if sql.startswith("INSERT INTO events ")]
    assert sum(rows) == 100
    assert len(rows) <= 2


@pytest.mark.parametrize("durability", ["full", "normal"])
async def test_no_publish_returns_before_its_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch, durability: Any
) -> None:
    """Promise 2: an ack before the COMMIT that covers it could be lost by a crash."""
    tracer = Tracer(monkeypatch)
    announced: list[Committed] = []
    async with SqliteEventStorage(path, durability) as storage:
        storage.add_listener(announced.append)
        (connection,) = tracer.connections
        for stage in ("before", "after"):
            gate = Gate("COMMIT")
            setattr(connection, stage, gate)
            tasks = await start_publishing(20, storage)
            await asyncio.to_thread(gate.wait_until_reached)
            for _ in range(100):
                await asyncio.sleep(0)
            assert not any(task.done() for task in tasks)
            assert announced == []
            gate.open()
            setattr(connection, stage, lambda sql: None)
            await asyncio.gather(*tasks)
            assert announced
            announced.clear()


async def test_full_durability_syncs_each_commit_and_normal_does_not(path: Path) -> None:
    """Promise 2 depends on SQLite's setting: with ``synchronous`` below FULL, an ack precedes its sync."""
    for durability, expected in (("full", 2), ("normal", 1)):
        async with SqliteEventStorage(path, durability) as storage:  # type: ignore[arg-type]
            level = await storage.transact(lambda tx: tx.execute("PRAGMA synchronous").fetchone()[0])
            mode = await storage.transact(lambda tx: tx.execute("PRAGMA journal_mode").fetchone()[0])
        assert (level, mode) == (expected, "wal")


async def test_full_durability_sets_fullfsync(path: Path) -> None:
    """Promise 3. On macOS an ordinary fsync may leave data in the disk's own cache."""
    for durability, expected in (("full", (1, 1)), ("normal", (0, 1))):
        async with SqliteEventStorage(path, durability) as storage:  # type: ignore[arg-type]
            settings = ("fullfsync", "checkpoint_fullfsync")
            found = [
                await storage.transact(lambda tx, name=name: tx.execute(f"PRAGMA {name}").fetchone()[0])  # type: ignore[misc]
                for name in settings
            ]
        assert tuple(found) == expected


async def test_listeners_are_called_before_the_publisher_resumes(storage: SqliteEventStorage) -> None:
    """If a publisher drained the bus before the bus knew of its event, it would not wait for that event."""
    heard: list[Committed] = []
    remove = storage.add_listener(heard.append)
    first = Tick("A", 1)
    await storage.store_event(first)
    assert [(batch.first, batch.events) for batch in heard] == [(1, (first,))]
    remove()
    await storage.store_event(Tick("A", 2))
    assert len(heard) == 1


async def test_listeners_are_called_once_for_the_events_of_a_commit(storage: SqliteEventStorage) -> None:
    """Each call wakes every subscription of a bus, so one call for each event would cost a lot."""
    batches: list[Committed] = []
    storage.add_listener(batches.append)
    events = ticks(4)
    assert await storage.transact(lambda tx: [tx.store_event(event) for event in events]) == [1, 2, 3, 4]
    assert batches == [Committed(1, tuple(events))]


async def test_a_listener_is_not_told_of_an_event_that_it_cannot_decode(storage: SqliteEventStorage) -> None:
    """The events of one commit on both sides of it must keep their own positions."""
    batches: list[Committed] = []
    before, unknown, after = [Tick("A"), Note("gone"), Tick("B")]
    for due_at, event in enumerate((before, unknown, after)):
        await storage.schedule_event(event, float(due_at))
    storage.add_listener(batches.append)
    with pytest.MonkeyPatch.context() as patch:
        known = registry.schema_named
        patch.setattr(
            registry, "schema_named", lambda name, at: known(name + "?" * (name == Note.event_type), at)
        )
        await storage.release_due(9.0)
    assert batches == [Committed(1, (before,)), Committed(3, (after,))]
    assert await storage.get_event(unknown.event_id) == unknown


async def test_a_listener_that_raises_does_not_stop_the_writer(
    storage: SqliteEventStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in the writer thread would leave every later publisher waiting for ever."""

    def broken(batch: Committed) -> None:
        raise ValueError("no")

    storage.add_listener(broken)
    assert await storage.store_event(Tick("A")) == 1
    assert await storage.store_event(Tick("A")) == 2
    assert "a commit listener" in caplog.text


async def test_a_failed_append_does_not_fail_others_in_its_group(storage: SqliteEventStorage) -> None:
    """One publisher's conflict must not fail the other appends of its group."""
    stored = Tick("A", 1)
    await storage.store_event(stored)
    clash = Tick("A", 99, event_id=stored.event_id)
    results = await asyncio.gather(
        storage.store_event(Tick("B", 1)),
        storage.store_event(clash),
        storage.store_events(ticks(3, "C")),
        storage.append("symbol", "D", [Tick("D", 1)], expected_version=7),
        storage.transact(lambda tx: tx.execute("SELECT nonsense")),
        storage.store_event(Tick("E", 1)),
        return_exceptions=True,
    )
    assert [type(result).__name__ for result in results] == [
        "int",
        "DuplicateEventError",
        "list",
        "ConcurrencyError",
        "OperationalError",
        "int",
    ]
    stream = [(e.position, e.event.symbol, e.stream_version) async for e in storage.read()]
    assert [symbol for _, symbol, _ in stream] == ["A", "B", "C", "C", "C", "E"]
    assert [position for position, _, _ in stream] == [1, 2, 3, 4, 5, 6]
    assert [version for _, symbol, version in stream if symbol == "C"] == [1, 2, 3]


async def test_a_batch_with_one_conflict_stores_nothing(storage: SqliteEventStorage) -> None:
    """A batch stored in part would break the guarantee of `publish_batch`: all or none."""
    stored = Tick("A", 1)
    await storage.store_event(stored)
    batch = [Tick("A", 2), Tick("A", 99, event_id=stored.event_id), Tick("A", 3)]
    with pytest.raises(DuplicateEventError):
        await storage.store_events(batch)
    assert [event.number for event in await storage.get_events_by_aggregate("A", "symbol")] == [1]
    assert await storage.store_event(Tick("A", 4)) == 2


async def test_a_batch_with_an_event_above_the_payload_limit_stores_nothing(path: Path) -> None:
    """If only the events below the limit were stored, the batch would be published in part."""
    async with SqliteEventStorage(path, max_payload_bytes=100) as storage:
        with pytest.raises(InvalidEventError, match="limit is 100"):
            await storage.store_events([Note("short"), Note("x" * 100)])
        with pytest.raises(InvalidEventError, match="limit is 100"):
            await storage.transact(lambda tx: tx.store_event(Note("x" * 100)))
        assert await storage.head() == 0


async def test_a_failed_commit_fails_all_its_appends_and_stores_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 37: after a full disk has space again, positions and versions continue without a gap."""
    tracer = Tracer(monkeypatch)
    async with SqliteEventStorage(path) as storage:
        (connection,) = tracer.connections
        await storage.store_event(Tick("A", 1))

        def full(sql: str) -> None:
            if sql == "COMMIT":
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error

        connection.before = full
        tasks = await start_publishing(10, storage)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {StorageUnavailableError}
        connection.before = lambda sql: None
        assert [event.number for event in await storage.get_events_by_aggregate("A", "symbol")] == [1]
        assert await storage.append("symbol", "A", [Tick("A", 2)], expected_version=1) == [2]


async def test_a_cancelled_publisher_leaves_its_event_stored_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 10: a cancellation may come too late, but publishing again must not store the event twice."""
    tracer = Tracer(monkeypatch)
    async with SqliteEventStorage(path) as storage:
        (connection,) = tracer.connections
        gate = connection.before = Gate("COMMIT")
        event = Tick("A", 1)
        task = asyncio.ensure_future(storage.store_event(event))
        await asyncio.to_thread(gate.wait_until_reached)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()
        assert await storage.store_event(event) == 1
        assert await storage.head() == 1


async def test_a_large_batch_keeps_the_order_of_its_events(storage: SqliteEventStorage) -> None:
    """Rows are inserted by statements of various sizes; an error at a boundary would lose or repeat some."""
    for count in (1, 3, 4, 21, 341, 1000):
        head = await storage.head()
        positions = await storage.store_events(ticks(count, f"of-{count}"))
        assert positions == list(range(head + 1, head + count + 1))
        stored = await storage.get_events_by_aggregate(f"of-{count}", "symbol")
        assert [event.number for event in stored] == list(range(1, count + 1))


async def test_publishing_to_a_closed_storage_raises(path: Path) -> None:
    """An event accepted after the writer thread has ended would be lost silently."""
    storage = SqliteEventStorage(path)
    storage.close()
    with pytest.raises(StorageError, match="closed"):
        await storage.store_event(Tick("A"))
    with pytest.raises(StorageError, match="closed"):
        await storage.head()
    with pytest.raises(StorageError, match="closed"):
        await storage.transact(lambda tx: None)


async def test_close_stores_all_events_accepted_before_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing while publishers wait must finish their commits, not drop them."""
    tracer = Tracer(monkeypatch)
    storage = SqliteEventStorage(path)
    gate = tracer.connections[0].before = Gate("COMMIT")
    tasks = await start_publishing(50, storage)
    await asyncio.to_thread(gate.wait_until_reached)
    closing = asyncio.ensure_future(storage.aclose())
    await asyncio.sleep(0)
    gate.open()
    await closing
    assert await asyncio.gather(*tasks) == list(range(1, 51))


async def test_publishers_in_several_threads_and_loops_each_get_their_own_positions(path: Path) -> None:
    """Futures belong to the loop that made them; resolving them from elsewhere would corrupt that loop."""
    with SqliteEventStorage(path) as storage:

        def publish(symbol: str) -> list[int]:
            async def run() -> list[int]:
                return list(await asyncio.gather(*(storage.store_event(t) for t in ticks(50, symbol))))

            return asyncio.run(run())

        results = await asyncio.gather(*(asyncio.to_thread(publish, symbol) for symbol in "ABCD"))
        assert sorted(position for result in results for position in result) == list(range(1, 201))
        for symbol in "ABCD":
            stored = await storage.get_events_by_aggregate(symbol, "symbol")
            assert [event.number for event in stored] == list(range(1, 51))


async def test_a_publisher_whose_loop_has_closed_does_not_stop_the_writer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher's loop may be closed while its commit syncs; the writer must go on for the others."""
    tracer = Tracer(monkeypatch)
    async with SqliteEventStorage(path) as storage:
        gate = tracer.connections[0].before = Gate("COMMIT")
        loop = asyncio.new_event_loop()

        async def leave() -> None:
            asyncio.ensure_future(storage.store_event(Tick("gone"))).cancel()
            task = asyncio.ensure_future(storage.store_event(Tick("A")))
            await asyncio.sleep(0)
            task.cancel()

        await asyncio.to_thread(loop.run_until_complete, leave())
        await asyncio.to_thread(gate.wait_until_reached)
        loop.close()
        gate.open()
        assert await storage.store_event(Tick("B")) == 2
