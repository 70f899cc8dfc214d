"""Queries by type, aggregate, correlation id and time find events, whether indexed already or not."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pabal import DomainEvent, InMemoryEventStorage, SqliteEventStorage
from pabal.domain.envelope import to_envelope
from pabal.errors import CorruptLogError
from pabal.ports.storage import LogFilter, ParkedDelivery, PendingRetry, Progress
from pabal.storage.sqlite import appender, inspection, queries
from tests.storage.events import Note, Tick, ticks

TICK, NOTE = Tick.event_type, Note.event_type
CHAINS = (None, "chain-1", "chain-2")

events_of_all_kinds = st.lists(
    st.builds(
        lambda kind, symbol, chain, cause: (
            Tick(symbol, correlation_id=chain, causation_id=cause)
            if kind
            else Note(correlation_id=chain, causation_id=cause)
        ),
        st.booleans(),
        st.sampled_from(["A", "B"]),
        st.sampled_from(CHAINS),
        st.sampled_from([None, "cause-1"]),
    ),
    max_size=40,
)
filters = st.builds(
    LogFilter,
    types=st.sampled_from([(), (TICK,), (TICK, NOTE), ("unheard",)]),
    aggregate_id=st.sampled_from([None, None, "A", "B"]),
    correlation_id=st.sampled_from([*CHAINS, None, "unheard"]),
    causation_id=st.sampled_from([None, None, "cause-1"]),
)
pages = st.fixed_dictionaries(
    {
        "after": st.integers(0, 45),
        "before": st.none() | st.integers(0, 45),
        "limit": st.integers(1, 50),
        "newest_first": st.booleans(),
    }
)


@given(events=events_of_all_kinds, requests=st.lists(st.tuples(filters, pages), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_sqlite_finds_what_the_reference_model_finds(
    events: list[DomainEvent], requests: list[tuple[LogFilter, dict[str, Any]]]
) -> None:
    """Indexed rows, rows not indexed yet, and ranges across both must give the same results."""

    async def compare(path: Path) -> None:
        model = InMemoryEventStorage()
        async with SqliteEventStorage(path, durability="normal") as storage:
            for event in events:
                await model.store_event(event)
                await storage.store_event(event)
            for wanted, page in requests:
                expected = [row.position for row in await model.find_events(wanted, **page)]
                found = [row.position for row in await storage.find_events(wanted, **page)]
                assert found == expected, (wanted, page)

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(appender, "_INDEX_EVERY", 7)
        asyncio.run(compare(Path(folder) / "log.db"))


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (LogFilter(types=(TICK,)), "SEARCH d USING PRIMARY KEY (event_type=? AND position>? AND position<?)"),
        (LogFilter(aggregate_id="A", aggregate_type="symbol"), "SEARCH d USING PRIMARY KEY (aggregate_id=?"),
        (LogFilter(correlation_id="chain-1"), "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)"),
        (LogFilter(), "SEARCH e USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
    ],
    ids=["type", "aggregate", "chain", "no-filter"],
)
@pytest.mark.parametrize("newest_first", [False, True])
async def test_find_events_uses_an_index_and_does_not_sort(
    path: Path, monkeypatch: pytest.MonkeyPatch, wanted: LogFilter, index: str, newest_first: bool
) -> None:
    """A query that reads the whole log is quick with a thousand events and unusable with a million."""
    monkeypatch.setattr(appender, "_INDEX_EVERY", 20)
    async with SqliteEventStorage(path) as storage:
        await storage.store_events([*ticks(30, "A"), *(Note(correlation_id="chain-1") for _ in range(9))])
    plan: list[str] = []

    class Explaining(sqlite3.Connection):
        def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:
            if "FROM events e" in sql or "JOIN events e" in sql:
                plan.extend(row[3] for row in super().execute(f"EXPLAIN QUERY PLAN {sql}", values))
            return super().execute(sql, values)

    connection = sqlite3.connect(path, isolation_level=None, factory=Explaining)
    queries.find_events(connection, str(path), wanted, 0, None, 5, newest_first)
    connection.close()
    assert any(line.startswith(index) for line in plan), plan
    assert not any("SCAN e" in line or "SCAN d" in line for line in plan), plan
    assert not any("TEMP B-TREE FOR ORDER BY" in line for line in plan), plan


@pytest.mark.parametrize(
    "wanted",
    [
        LogFilter(aggregate_id="A"),
        LogFilter(aggregate_id="A", aggregate_type="symbol"),
        LogFilter(correlation_id="chain-1"),
    ],
    ids=["aggregate", "aggregate-of-a-type", "chain"],
)
@pytest.mark.parametrize("newest_first", [False, True])
async def test_the_cost_of_a_page_does_not_grow_with_the_stream_or_correlation_chain(
    path: Path, wanted: LogFilter, newest_first: bool
) -> None:
    """Otherwise each page would read and sort the whole stream, and paging through a million take hours."""

    def page(connection: sqlite3.Connection, middle: int) -> list[Any]:
        return queries.find_events(connection, str(path), wanted, middle, middle + 20, 5, newest_first)

    short, long = [await _instructions_per_page(path, count, page) for count in (500, 3500)]
    assert long < short * 1.5, (short, long)


@pytest.mark.parametrize("kind", [None, "symbol"])
async def test_the_cost_of_a_page_does_not_grow_with_the_history_of_an_aggregate(
    path: Path, kind: str | None
) -> None:
    """Otherwise each page of an aggregate would read all later versions."""

    def page(connection: sqlite3.Connection, middle: int) -> list[Any]:
        return inspection.positions_of(connection, "A", kind, middle, 5)

    short, long = [await _instructions_per_page(path, count, page) for count in (500, 3500)]
    assert long < short * 1.5, (short, long)


async def test_the_cost_of_deliveries_at_does_not_grow_with_dead_letters_and_retries(path: Path) -> None:
    """Each page about an event would read all failures ever recorded: 100,000 after a bad night."""
    steps: list[int] = []
    for many in (200, 2000):
        async with SqliteEventStorage(path) as storage:
            await storage.store_events(ticks(many))
            last = await storage.head()
            for name in ("forgotten", "sub"):
                await _add_failures(storage, name, many)
            await storage.forget_subscription("forgotten")
        found: list[Any] = []

        def look(connection: sqlite3.Connection, last: int = last, found: list[Any] = found) -> None:
            found += inspection._deliveries_at(connection, last)

        steps.append(_count_instructions(path, look))
        assert {one.subscription: one.state for one in found} == {"forgotten": "parked", "sub": "parked"}
    assert steps[1] < steps[0] * 1.5, steps


async def _add_failures(storage: SqliteEventStorage, name: str, many: int) -> None:
    """Have a subscription park the newest events, and wait with all others, in every way."""
    cursor = await storage.open_subscription(name, "beginning")
    assert cursor is not None
    last = await storage.head()
    parked = range(last - many + 1, last + 1)
    change = Progress(
        name,
        cursor.epoch,
        0,
        0,
        (),
        tuple(PendingRetry(position, 1, 0.0) for position in range(1, last)),
        parked=tuple(ParkedDelivery(at, "", (), 0.0, None, None, None, False) for at in parked),
        queued=tuple(("key", position) for position in range(1, last)),
    )
    assert await storage.save_progress([change]) == []
    await storage.release_subscription(name, cursor.epoch)


async def _instructions_per_page(
    path: Path, count: int, page: Callable[[sqlite3.Connection, int], list[Any]]
) -> int:
    """Append to one stream and chain, and count the SQLite instructions to read a page in its middle."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(Tick("A", correlation_id="chain-1") for _ in range(count))
        middle = await storage.head() // 2

    def read(connection: sqlite3.Connection) -> None:
        assert len(page(connection, middle)) == 5

    return _count_instructions(path, read)


def _count_instructions(path: Path, read: Callable[[sqlite3.Connection], object]) -> int:
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection = sqlite3.connect(path, isolation_level=None)
    connection.set_progress_handler(step, 1)
    read(connection)
    connection.close()
    return steps


async def test_recording_times_never_decrease_when_the_clock_goes_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 31. Binary search by time would return wrong positions if recording times could decrease."""
    real = time.time_ns
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(5))
        monkeypatch.setattr("pabal.storage.sqlite.appender.time.time_ns", lambda: real() - 3600 * 10**9)
        await storage.store_events(ticks(5))
    async with SqliteEventStorage(path) as storage:
        await storage.store_event(Note())
        monkeypatch.undo()
        await storage.store_event(Note())
        times = [to_envelope(row).recorded_at for row in await storage.find_events(LogFilter())]
        assert times == sorted(times)
        since = LogFilter(since=times[-1] - timedelta(microseconds=1))
        assert [row.position for row in await storage.find_events(since)][-1] == 12


async def test_find_events_raises_on_an_altered_row(path: Path) -> None:
    """Promise 38. A dashboard would show an event that was never published."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(5))
        await storage._do(lambda tx: tx.execute("UPDATE events SET payload = x'7b7d' WHERE position = 3"))
        with pytest.raises(CorruptLogError, match="position 3"):
            await storage.find_events(LogFilter(types=(TICK,)))


async def test_find_events_returns_no_trimmed_event(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index entry without an event would make a page shorter than it should be."""
    monkeypatch.setattr(appender, "_INDEX_EVERY", 5)
    async with SqliteEventStorage(path) as storage:
        for number in range(30):
            await storage.store_event(Tick("A", number, correlation_id="chain-1"))
        await storage.trim(max_events=10)
        for wanted in (LogFilter(types=(TICK,)), LogFilter(correlation_id="chain-1"), LogFilter()):
            found = await storage.find_events(wanted, limit=3)
            assert [row.position for row in found] == [21, 22, 23]
        left = await storage.transact(
            lambda tx: [
                tx.execute(f"SELECT min(position) FROM {table}").fetchone()[0]
                for table in ("events_by_type", "events_by_correlation")
            ]
        )
        assert left == [21, 21]
