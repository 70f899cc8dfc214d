"""The queries of a storage that applications use."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.errors import StorageUnavailableError
from pabal.ports.storage import Page, ParkedDelivery, PendingRetry, Progress
from pabal.storage.sqlite.unprocessed import UnprocessedCache
from tests.storage.events import Note, Recorder, Tick, ticks


async def test_get_event_returns_the_event_with_all_its_fields(any_storage: Any) -> None:
    """All its fields must be restored, not only the payload, which is what ``==`` compares."""
    event = Tick("A", 1, "text", correlation_id="why", causation_id="by", metadata={"n": 1})
    await any_storage.store_event(event)
    found = await any_storage.get_event(event.event_id)
    assert found.to_dict() == event.to_dict()
    assert await any_storage.get_event("00000000-0000-7000-8000-000000000000") is None
    assert await any_storage.get_event("no id at all") is None


async def test_read_pages_through_the_log_by_position_and_type(any_storage: Any) -> None:
    """No event may be skipped or repeated between two pages, even if few events match."""
    events = [Note(str(n)) if n % 7 == 0 else Tick("A", n) for n in range(600)]
    await any_storage.store_events(events)
    assert [e.event async for e in any_storage.read()] == events
    assert [e.position async for e in any_storage.read(590)] == list(range(591, 601))
    assert [e.position async for e in any_storage.read(5, limit=3)] == [6, 7, 8]
    assert [e async for e in any_storage.read(limit=0)] == []
    assert [e async for e in any_storage.read(600)] == []
    notes = [event for event in events if isinstance(event, Note)]
    assert [e.event async for e in any_storage.read(types=[Note])] == notes
    assert [e.event async for e in any_storage.read(types=["storage-test.note"], limit=2)] == notes[:2]


async def test_statistics_show_totals_and_the_first_and_last_event(any_storage: Any) -> None:
    """A dashboard shows these figures, even of an empty log."""
    empty = await any_storage.get_event_statistics()
    assert (empty["total_events"], empty["first_position"], empty["last_occurred_at"]) == (0, None, None)
    events = [*ticks(3), Note("a")]
    await any_storage.store_events(events)
    figures = await any_storage.get_event_statistics()
    assert figures["total_events"] == 4
    assert figures["events_by_type"] == {"storage-test.note": 1, "storage-test.tick": 3}
    assert figures["events_by_aggregate"] == {"symbol": 3}
    assert (figures["first_position"], figures["last_position"]) == (1, 4)
    assert figures["first_occurred_at"] == events[0].occurred_at
    assert figures["last_occurred_at"] == events[-1].occurred_at


async def test_unprocessed_events_are_those_some_subscription_has_not_finished(any_storage: Any) -> None:
    """An event finished by one subscription is still unprocessed if another has not finished it."""
    async with InMemoryEventBus(any_storage) as bus:
        bus.subscribe(Tick, Recorder(), name="quick", start="beginning")
        await bus.publish_batch(ticks(3))
        await bus.drain(timeout=60)
    assert await any_storage.get_unprocessed_events() == []
    cursor = await any_storage.open_subscription("slow", 1)
    assert cursor is not None
    assert [event.number for event in await any_storage.get_unprocessed_events()] == [2, 3]
    assert [event.number for event in await any_storage.get_unprocessed_events(limit=1)] == [2]


async def test_streams_are_listed_page_by_page(any_storage: Any) -> None:
    """A page that began with the last stream of the one before it would show some of them twice."""
    events = [Tick(f"{letter}{n}") for letter in "ab" for n in range(5)]
    await any_storage.store_events(events)
    await any_storage.aclose()  # a file's index is complete after closing
    any_storage.open()
    await any_storage.store_events([Tick("a2"), Tick("c0")])
    listed, after = [], None
    while page := await any_storage.list_streams(after=after, limit=3):
        listed += page
        after = page[-1][:2]
    wanted = {event.symbol: 1 for event in events} | {"a2": 2, "c0": 1}
    assert listed == [(symbol, "symbol", version) for symbol, version in sorted(wanted.items())]
    rest = await any_storage.list_streams(prefix="b", after=("b2", "symbol"))
    assert [identity for identity, _, _ in rest] == ["b3", "b4"]


async def test_a_subscription_shows_when_its_progress_was_last_saved(any_storage: Any) -> None:
    """``list_abandoned`` would name a subscription that is idle between two runs of a nightly job."""
    cursor = await any_storage.open_subscription("s", "now")
    [opened] = await any_storage.list_subscriptions()
    begun = datetime.now(UTC)
    await any_storage.save_progress([Progress("s", cursor.epoch, 0, 0)])
    [saved] = await any_storage.list_subscriptions()
    assert opened.updated_at <= begun <= saved.updated_at


async def test_a_page_of_no_rows_ends_where_it_began(any_storage: Any) -> None:
    """A limit of 0 is allowed; whoever asks for the next page must not skip the events it left out."""
    assert await any_storage.read_page(0, limit=0) == Page((), 0)
    await any_storage.store_events(ticks(3))
    assert await any_storage.read_page(1, limit=0) == Page((), 1)
    await any_storage.open_subscription("s", "beginning")
    assert await any_storage.get_unprocessed_events(limit=0) == []


async def test_unprocessed_events_are_found_beside_retries_of_trimmed_ones(
    storage: SqliteEventStorage,
) -> None:
    """A dead letter may be retried after its event was trimmed; it must take no other event's place."""
    await storage.store_events(ticks(10))
    cursor = await storage.open_subscription("s", "beginning")
    assert cursor is not None
    parked, retry = ParkedDelivery(1, "no", (), 5.0, None), PendingRetry(8, 1, 9e9)
    await storage.save_progress(
        [Progress("s", cursor.epoch, 7, 10, (8,), retries=(retry,), parked=(parked,))]
    )
    await storage.begin_retry(1, None, 9e9)
    assert (await storage.trim(max_events=4)).deleted == 6
    assert [event.number for event in await storage.get_unprocessed_events(limit=1)] == [8]


async def test_an_event_marked_as_processed_is_no_longer_unprocessed(any_storage: Any) -> None:
    """Applications that dispatch events themselves, without a bus, rely on the marks."""
    events = ticks(3)
    await any_storage.store_events(events)
    assert await any_storage.mark_event_processed(events[1].event_id, "done") is True
    assert await any_storage.mark_event_processed(events[1].event_id, "done again") is True
    assert await any_storage.mark_event_processed("00000000-0000-7000-8000-000000000000", None) is False
    assert await any_storage.get_unprocessed_events() == [events[0], events[2]]


async def test_unprocessed_events_are_complete_after_any_order_of_calls_and_marks(path: Path) -> None:
    """The cache of the last answer must hide no event: neither one stored since, nor one beyond a limit."""
    events = ticks(6)
    async with SqliteEventStorage(path) as storage, SqliteEventStorage(path) as other:
        assert await storage.get_unprocessed_events() == []
        await storage.store_events(events[:4])
        assert await storage.get_unprocessed_events(2) == events[:2]
        await other.mark_event_processed(events[1].event_id)
        await other.mark_event_processed(events[3].event_id)
        assert await storage.get_unprocessed_events() == [events[0], events[2]]
        await other.store_events(events[4:])
        assert await storage.get_unprocessed_events(1) == [events[0]]
        assert await storage.get_unprocessed_events() == [events[0], events[2], *events[4:]]
        for event in events:
            await storage.mark_event_processed(event.event_id)
        assert await storage.get_unprocessed_events() == []
        last = Tick("A")
        await storage.store_event(last)
        assert await storage.get_unprocessed_events(1) == [last]


async def test_get_unprocessed_events_does_not_rescan_marked_events(path: Path) -> None:
    """A caller that fetches a hundred events, marks them and repeats would need hours for a million.

    The same holds if the first event of all is never marked.
    """
    costs = []
    for count in (500, 3500):
        async with SqliteEventStorage(path) as storage:
            await storage.store_events(ticks(count))
        costs.append(_steps_to_ask_again(path))
    assert costs[1] < costs[0] * 1.5, costs


def _steps_to_ask_again(path: Path) -> int:
    """Mark all but the first, and count the instructions of SQLite's machine for the second answer."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(
        "INSERT OR IGNORE INTO processed SELECT position, NULL, 0 FROM events WHERE position > 1"
    )
    unmarked = UnprocessedCache()
    assert unmarked.first(connection, 100) == [1]
    connection.set_progress_handler(step, 1)
    assert unmarked.first(connection, 100) == [1]
    connection.close()
    return steps


async def test_a_backup_is_a_complete_database_of_that_moment(path: Path, tmp_path: Path) -> None:
    """A backup can be made while publishers continue, and is opened like any other file."""
    target = tmp_path / "backup.db"
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(500))
        await storage.open_subscription("s", "beginning")
        await storage.backup(target)
        await storage.store_event(Tick("A", 501))
        with pytest.raises(StorageUnavailableError, match="never overwrite"):
            await storage.backup(target)
        with pytest.raises(StorageUnavailableError, match="missing"):
            await storage.backup(tmp_path / "missing" / "backup.db")
    async with SqliteEventStorage(target) as copy:
        assert await copy.head() == 500
        assert await copy.check() == []
        cursor = await copy.open_subscription("s", "now")
        assert cursor is not None
        assert cursor.watermark == 0


async def test_check_reports_no_problem_in_a_used_file(path: Path) -> None:
    """False alarms would teach users to ignore the check."""
    async with SqliteEventStorage(path) as storage:
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, Recorder(), name="s")
            await bus.publish_batch(ticks(1500))
            await bus.publish(Note("later"), delay=1000)
            await bus.drain(timeout=60)
        assert await storage.check() == []
