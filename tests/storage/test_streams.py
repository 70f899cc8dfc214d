"""Streams with versions, and their index, which is built after the commits."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pabal import ConcurrencyError, DomainEvent, SqliteEventStorage
from pabal.errors import InvalidEventError
from pabal.storage.sqlite import appender
from tests.storage.events import Note, Tick, ticks
from tests.storage.tracing import Tracer


@pytest.fixture(params=[1, 7, 1000])
def slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows after which the index is extended: after every row, now and then, and only at the end."""
    monkeypatch.setattr(appender, "_INDEX_EVERY", request.param)
    return int(request.param)


async def numbers(storage: Any, symbol: str) -> list[int]:
    return [event.number for event in await storage.get_events_by_aggregate(symbol, "symbol")]


async def versions(storage: Any, symbol: str) -> list[int]:
    return [e.stream_version async for e in storage.read() if getattr(e.event, "symbol", "") == symbol]


class Untyped(DomainEvent):
    """An event of an aggregate without a type."""

    event_type: ClassVar[str] = "storage-test.untyped"
    key: str

    @property
    def aggregate_id(self) -> str:
        return self.key


async def test_an_empty_aggregate_type_selects_events_without_a_type(any_storage: Any) -> None:
    """Streams listed without a type could be read from a file, but not from memory."""
    await any_storage.store_events([*ticks(1, "A"), Untyped("A")])
    assert await any_storage.get_events_by_aggregate("A", "") == [Untyped("A")]
    assert len(await any_storage.get_events_by_aggregate("A")) == 2


class EmptyType(Untyped):
    """An event whose class declares an empty aggregate type, which is as good as none."""

    event_type: ClassVar[str] = "storage-test.empty-type"
    aggregate_type: ClassVar[str] = ""


async def test_no_aggregate_type_and_an_empty_one_are_the_same_stream(any_storage: Any) -> None:
    """They share their versions, so events of both classes in one stream must not look like damage."""
    events = [Untyped("A"), EmptyType("A"), Untyped("A")]
    await any_storage.store_events(events)
    assert await any_storage.get_events_by_aggregate("A") == events
    assert [row.stream_version for row in await any_storage.read_history("", "A")] == [1, 2, 3]
    assert await any_storage.list_streams() == [("A", "", 3)]


async def test_an_append_at_the_expected_version_succeeds(any_storage: Any) -> None:
    """Version 0 means that the stream must not exist; None allows any version."""
    assert await any_storage.append("symbol", "A", ticks(2, "A"), expected_version=0) == [1, 2]
    assert await any_storage.append("symbol", "A", ticks(1, "A", 3), expected_version=2) == [3]
    assert await any_storage.append("symbol", "A", ticks(1, "A", 4), expected_version=None) == [4]
    assert await numbers(any_storage, "A") == [1, 2, 3, 4]
    assert await versions(any_storage, "A") == [1, 2, 3, 4]


async def test_an_append_at_the_wrong_version_raises_an_error_with_the_actual_version(
    any_storage: Any,
) -> None:
    """The caller loads and decides again, and needs to know how far it was behind."""
    await any_storage.append("symbol", "A", ticks(3, "A"), expected_version=0)
    for expected in (0, 2, 4):
        with pytest.raises(ConcurrencyError) as caught:
            await any_storage.append("symbol", "A", ticks(1, "A", 9), expected_version=expected)
        error = caught.value
        assert (error.aggregate_type, error.aggregate_id) == ("symbol", "A")
        assert (error.expected_version, error.actual_version) == (expected, 3)
    assert await numbers(any_storage, "A") == [1, 2, 3]


async def test_append_rejects_an_event_of_another_stream(any_storage: Any) -> None:
    """It would get a version of a stream to which it does not belong."""
    for stray in (Tick("B"), Note("no aggregate")):
        with pytest.raises(InvalidEventError, match="belongs to"):
            await any_storage.append("symbol", "A", [stray], expected_version=0)
    assert await any_storage.head() == 0


async def test_an_empty_append_changes_nothing(any_storage: Any) -> None:
    """A decision that produces no event is normal."""
    assert await any_storage.append("symbol", "A", [], expected_version=0) == []
    assert await any_storage.store_events([]) == []
    assert await any_storage.head() == 0


async def test_exactly_one_of_several_concurrent_appends_at_a_version_succeeds(any_storage: Any) -> None:
    """Two winners would each have decided on a state that the other has changed."""
    for version in range(10):
        results = await asyncio.gather(
            *(any_storage.append("symbol", "A", [Tick("A", n)], expected_version=version) for n in range(8)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, list) for result in results) == 1
        assert sum(isinstance(result, ConcurrencyError) for result in results) == 7
    assert await versions(any_storage, "A") == list(range(1, 11))


async def test_streams_with_one_id_and_different_types_are_separate(any_storage: Any) -> None:
    """An order and an invoice may both be number 7."""

    class Other(Tick):
        event_type = "storage-test.other"
        aggregate_type = "other"

    await any_storage.store_events([Tick("7", 1), Other("7", 2), Tick("7", 3)])
    assert [e.number for e in await any_storage.get_events_by_aggregate("7", "symbol")] == [1, 3]
    assert [e.number for e in await any_storage.get_events_by_aggregate("7", "other")] == [2]
    assert [e.number for e in await any_storage.get_events_by_aggregate("7")] == [1, 2, 3]
    assert [e.stream_version async for e in any_storage.read()] == [1, 1, 2]


async def test_versions_and_reads_are_correct_at_any_state_of_the_index(path: Path, slices: int) -> None:
    """The index lags behind the log; a version computed from it alone would be assigned twice."""
    chance = random.Random(slices)
    expected: dict[str, list[int]] = {symbol: [] for symbol in "ABCDE"}
    storage = SqliteEventStorage(path)
    try:
        for step in range(120):
            symbol = chance.choice("ABCDE")
            known = expected[symbol]
            if chance.random() < 0.1:
                with pytest.raises(ConcurrencyError):
                    await storage.append("symbol", symbol, [Tick(symbol)], expected_version=len(known) + 1)
            fresh = list(range(step * 10, step * 10 + chance.randrange(1, 4)))
            batch = [Tick(symbol, number) for number in fresh]
            await storage.append("symbol", symbol, batch, expected_version=len(known))
            known += fresh
            assert await numbers(storage, symbol) == known
            if chance.random() < 0.1:
                await storage.aclose()
                storage = SqliteEventStorage(path)
        for symbol, known in expected.items():
            assert await numbers(storage, symbol) == known
            assert await versions(storage, symbol) == list(range(1, len(known) + 1))
        assert await storage.check() == []
    finally:
        storage.close()


async def test_two_storages_on_one_file_agree_on_versions(path: Path, slices: int) -> None:
    """Each keeps a map of the events not indexed yet, which must include what the other one wrote."""
    chance = random.Random(slices)
    expected: dict[str, list[int]] = {symbol: [] for symbol in "ABC"}
    async with SqliteEventStorage(path) as one, SqliteEventStorage(path) as two:
        for number in range(150):
            writer, reader = chance.sample([one, two], 2)
            symbol = chance.choice("ABC")
            known = expected[symbol]
            await writer.append("symbol", symbol, [Tick(symbol, number)], expected_version=len(known))
            known.append(number)
            assert await numbers(reader, symbol) == known
            with pytest.raises(ConcurrencyError) as caught:
                await reader.append("symbol", symbol, [Tick(symbol, -1)], expected_version=len(known) - 1)
            assert caught.value.actual_version == len(known)
        assert await one.check() == []


async def test_a_stream_read_during_indexing_returns_each_event_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the commit of an index slice, a row is also in the map for a moment; it must be read once."""
    monkeypatch.setattr(appender, "_INDEX_EVERY", 10)
    tracer = Tracer(monkeypatch)
    async with SqliteEventStorage(path) as storage:
        (connection,) = tracer.connections
        seen: list[list[int]] = []
        loop = asyncio.get_running_loop()

        def read_now(sql: str) -> None:
            if "streams" in sql or sql == "COMMIT":
                # In the writer thread: the loop reads while the writer is stopped at this statement.
                reading = asyncio.run_coroutine_threadsafe(numbers(storage, "A"), loop)
                seen.append(reading.result(20))

        connection.before = connection.after = read_now
        await storage.store_events(ticks(10, "A"))
        await storage.store_event(Tick("A", 11))
        connection.before = connection.after = lambda sql: None
        assert seen[0] == []
        assert seen[-1] == list(range(1, 12))
        assert all(reading in (list(range(1, n)) for n in (1, 11, 12)) for reading in seen)
        assert sum(len(reading) == 10 for reading in seen) >= 3


async def test_events_of_many_streams_are_indexed_in_larger_slices(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A slice with one row for each of 10,000 aggregates writes 10,000 pages, and so does the next."""
    monkeypatch.setattr(appender, "_INDEX_EVERY", 10)
    async with SqliteEventStorage(path) as storage:

        async def indexed_upto() -> int:
            find = "SELECT value FROM meta WHERE key = 'indexed_upto'"
            return int(await storage.transact(lambda tx: tx.execute(find).fetchone()[0]))

        await storage.store_events([Tick("A", number) for number in range(10)])
        assert await indexed_upto() == 10
        await storage.store_events([Tick(f"S{number}", 1) for number in range(29)])
        assert await indexed_upto() == 10
        await storage.store_event(Tick("S0", 2))
        assert await indexed_upto() == 40
    assert caplog.text == "", "no event is indexed twice"


async def test_a_failure_to_extend_the_index_does_not_stop_appends(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The index only saves time; events and versions must go on without it."""
    monkeypatch.setattr(appender, "_INDEX_EVERY", 5)
    tracer = Tracer(monkeypatch)
    async with SqliteEventStorage(path) as storage:
        (connection,) = tracer.connections
        attempts: list[str] = []

        def refuse(sql: str) -> None:
            if sql.startswith("INSERT INTO streams"):
                attempts.append(sql)
                raise sqlite3.OperationalError("disk I/O error")

        connection.before = refuse
        for number in range(1, 13):
            await storage.append("symbol", "A", [Tick("A", number)], expected_version=number - 1)
        assert await numbers(storage, "A") == list(range(1, 13))
        await storage.transact(lambda tx: None)  # the index is built after the last append is answered
        assert len(attempts) == 2  # not again for every commit
        assert "could not be extended" in caplog.text
        connection.before = lambda sql: None
    async with SqliteEventStorage(path) as storage:
        assert await storage.check() == []
        assert await numbers(storage, "A") == list(range(1, 13))


async def test_versions_stay_correct_when_the_cache_of_stream_heads_overflows(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map is cleared when it is full; what the current transaction added must survive that."""
    monkeypatch.setattr(appender, "_MAX_CACHED_HEADS", 3)
    async with SqliteEventStorage(path) as storage:
        batch = [Tick(symbol, number) for number in range(1, 5) for symbol in "ABCDEFGH"]
        await storage.store_events(batch)
        await storage.store_events(batch[::-1] + ticks(2, "A", 5))
        for symbol in "BCDEFGH":
            assert await numbers(storage, symbol) == [1, 2, 3, 4]
            assert await versions(storage, symbol) == [1, 2, 3, 4]
        assert await versions(storage, "A") == [1, 2, 3, 4, 5, 6]
