"""Damaged rows are found by their checksum, reported with their position, and never returned."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pabal import CorruptLogError, InMemoryEventBus, SqliteEventStorage
from pabal.errors import CorruptDeadLetterError
from pabal.ports.storage import ParkedDelivery, PendingRetry, Progress
from pabal.storage.sqlite import schedule
from tests.storage.events import Note, Recorder, Tick, ticks

DAMAGED = 7


async def filled(path: Path) -> list[Tick]:
    events = [
        Tick("A", n, f"text {n}", correlation_id=f"why-{n}", causation_id=f"by-{n}", metadata={"n": n})
        for n in range(1, 21)
    ]
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(events)
    return events


def alter(path: Path, sql: str, *parameters: object) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    assert connection.execute(sql, parameters).rowcount > 0
    connection.close()


async def read_into(served: list[Any], storage: SqliteEventStorage, after: int = 0) -> None:
    async for envelope in storage.read(after):
        served.append(envelope.event)  # noqa: PERF401 - what came before an error counts


ALTERATIONS = {
    "event_id": "UPDATE events SET event_id = zeroblob(16) WHERE position = 7",
    "event_type": "UPDATE events SET event_type = 'storage-test.note' WHERE position = 7",
    "schema_version": "UPDATE events SET schema_version = 2 WHERE position = 7",
    "aggregate_type": "UPDATE events SET aggregate_type = 'symbom' WHERE position = 7",
    "aggregate_id": "UPDATE events SET aggregate_id = 'B' WHERE position = 7",
    "occurred_at": "UPDATE events SET occurred_at = occurred_at + 1 WHERE position = 7",
    "correlation_id": "UPDATE events SET correlation_id = NULL WHERE position = 7",
    "causation_id": "UPDATE events SET causation_id = 'by-8' WHERE position = 7",
    "metadata": "UPDATE events SET metadata = NULL WHERE position = 7",
    "payload": "UPDATE events SET payload = CAST(replace(payload, '7', '8') AS BLOB) WHERE position = 7",
    "checksum": "UPDATE events SET checksum = checksum + 1 WHERE position = 7",
    "stream_version": "UPDATE events SET stream_version = 70 WHERE position = 7",
    "recorded_at": "UPDATE events SET recorded_at = recorded_at + 4294967296 WHERE position = 7",
    "position": "UPDATE events SET position = 700 WHERE position = 7",
    "text that is no UTF-8": "UPDATE events SET correlation_id = CAST(x'77FF' AS TEXT) WHERE position = 7",
    "id that is no UTF-8": "UPDATE events SET aggregate_id = CAST(x'FF' AS TEXT) WHERE position = 7",
}


@pytest.mark.parametrize("column", ALTERATIONS)
async def test_an_altered_row_is_never_returned(path: Path, column: str) -> None:
    """Promise 38: a handler that acts on altered bytes does more harm than one that does not act."""
    events = await filled(path)
    alter(path, ALTERATIONS[column])
    async with SqliteEventStorage(path) as storage:
        served: list[Any] = []
        with pytest.raises(CorruptLogError) as caught:
            await read_into(served, storage)
        assert caught.value.position == DAMAGED
        assert caught.value.path == str(path)
        intact = [event for event in events if event.number != DAMAGED]
        assert served == intact[:6]
        with pytest.raises(CorruptLogError):
            await storage.get_events_by_aggregate("A", "symbol")
        if column != "event_id":
            with pytest.raises(CorruptLogError):
                await storage.get_event(events[DAMAGED - 1].event_id)
        problems = await storage.check()
        found_at = 700 if column == "position" else DAMAGED
        assert any(f"position {found_at}" in problem for problem in problems)
        if column != "position":
            rest: list[Any] = []
            await read_into(rest, storage, DAMAGED)
            assert rest == intact[6:]


async def test_rows_with_swapped_positions_are_not_returned(path: Path) -> None:
    """Each row is intact, but the checksum includes the position, so that the order is protected, too."""
    await filled(path)
    for source, target in ((7, 1000), (8, 7), (1000, 8)):
        alter(path, "UPDATE events SET position = ? WHERE position = ?", target, source)
    async with SqliteEventStorage(path) as storage:
        with pytest.raises(CorruptLogError) as caught:
            await read_into([], storage)
        assert caught.value.position == 7


async def test_a_missing_row_is_damage_unless_it_was_trimmed_from_the_start(path: Path) -> None:
    """A trim deletes from the start of the log, so an event missing from the middle is damage."""
    await filled(path)
    alter(path, "DELETE FROM events WHERE position < 4")
    async with SqliteEventStorage(path) as storage:
        served: list[Any] = []
        await read_into(served, storage)
        assert [event.number for event in served] == list(range(4, 21))
        stream = await storage.get_events_by_aggregate("A", "symbol")
        assert [event.number for event in stream] == list(range(4, 21))
    alter(path, "DELETE FROM events WHERE position = 7")
    async with SqliteEventStorage(path) as storage:
        for after, position in ((0, 7), (6, 7)):
            with pytest.raises(CorruptLogError) as caught:
                await read_into([], storage, after)
            assert caught.value.position == position
        with pytest.raises(CorruptLogError):
            await storage.get_events_by_aggregate("A", "symbol")


async def test_a_failed_read_does_not_hold_its_snapshot(path: Path) -> None:
    """Later reads would see the log as it was then. A subscription that halted there would not find its own
    record, take itself for resumed, and halt again, hundreds of times a second.
    """
    await filled(path)
    alter(path, ALTERATIONS["payload"])
    kept = []
    async with SqliteEventStorage(path) as storage:
        for number in range(4):  # in whichever thread
            with pytest.raises(CorruptLogError) as caught:
                await read_into([], storage)
            kept.append(caught.value)
            note = Note(f"note {number}")
            await storage.store_event(note)
            assert await storage.get_event(note.event_id) == note


INSERT_A_ROW = """
    INSERT INTO events SELECT ?, randomblob(16), event_type, schema_version, aggregate_type, aggregate_id,
        occurred_at, correlation_id, causation_id, metadata, payload, checksum, stream_version, recorded_at
    FROM events WHERE position = 20
"""


@pytest.mark.parametrize("while_open", [False, True])
@pytest.mark.parametrize("position", [21, 25, 0, -3])
async def test_a_row_inserted_with_sql_is_never_delivered(
    path: Path, position: int, while_open: bool
) -> None:
    """Promise 38: it was never published; below the first position, it would stay undetected for ever."""
    events = await filled(path)
    if not while_open:
        alter(path, INSERT_A_ROW, position)
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        if while_open:
            alter(path, INSERT_A_ROW, position)
        problems = await storage.check()
        assert any(f"{path}: the log is damaged at position {position} " in problem for problem in problems)
        assert any("Restore a backup" in problem for problem in problems)
        reads = Recorder()
        bus.subscribe(Tick, reads, name="reads", start="beginning")
        await bus.publish(Note("after"))
        await bus.drain(timeout=60)
        assert reads.seen == events
        if position > 0:
            assert bus.health().status == "failing"
            assert str(position) in bus.health().reasons[0]


@pytest.mark.parametrize("symbol", ["A", None])
async def test_check_reports_a_missing_event(path: Path, symbol: str | None) -> None:
    """Promise 38. Readers stop before a hole, so a check must report it. A trimmed log has no hole."""
    events = await filled(path)
    async with SqliteEventStorage(path) as storage:
        await storage.store_events([Note(str(n)) for n in range(10)])
        await storage.trim(max_events=25)
        assert await storage.check() == []
        alter(path, "DELETE FROM events WHERE position = ?", 12 if symbol else 25)
        (problem, *_) = await storage.check()
        assert f"position {12 if symbol else 25} (the next event is at {13 if symbol else 26})" in problem
    assert len(events) == 20


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM streams WHERE version = 7",
        "DELETE FROM streams WHERE version < 7",
        "UPDATE streams SET position = 3 WHERE version = 7",
        "UPDATE streams SET aggregate_id = 'B' WHERE version = 7",
    ],
)
async def test_reading_a_stream_with_a_damaged_index_raises_a_corrupt_log_error(path: Path, sql: str) -> None:
    """An aggregate loaded from a stream with a hole would decide on a state that never existed."""
    await filled(path)
    alter(path, sql)
    async with SqliteEventStorage(path) as storage:
        with pytest.raises(CorruptLogError):
            await storage.get_events_by_aggregate("A", "symbol")
        assert any("stream" in problem for problem in await storage.check())
        assert len([envelope async for envelope in storage.read()]) == 20


async def test_publishing_a_damaged_event_again_raises_a_corrupt_log_error(path: Path) -> None:
    """Treating it as a duplicate, or as different content, would both be wrong."""
    events = await filled(path)
    alter(path, ALTERATIONS["payload"])
    async with SqliteEventStorage(path) as storage:
        with pytest.raises(CorruptLogError) as caught:
            await storage.store_event(events[DAMAGED - 1])
        assert caught.value.position == DAMAGED
        assert await storage.store_event(events[DAMAGED]) == DAMAGED + 1


async def test_a_damaged_event_halts_its_subscription_but_not_the_others(path: Path) -> None:
    """Continuing after it would skip an event; delivering it would deliver what was never published."""
    await filled(path)
    alter(path, ALTERATIONS["payload"])
    async with SqliteEventStorage(path) as storage:
        reads, live = Recorder(), Recorder()
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, reads, name="reads", start="beginning")
            bus.subscribe(Note, live, name="live")
            await reads.reaches(6)
            await bus.publish(Note("after"))
            await live.reaches(1)
            await bus.drain(timeout=60)
            assert reads.numbers == [1, 2, 3, 4, 5, 6]
            health = bus.health()
            assert health.status == "failing"
            assert any("position 7" in reason for reason in health.reasons)


async def test_a_damaged_unfinished_event_halts_its_subscription_but_not_the_bus(path: Path) -> None:
    """One damaged byte must not keep a whole application from starting."""
    await filled(path)
    async with SqliteEventStorage(path) as storage:
        cursor = await storage.open_subscription("reads", "beginning")
        assert cursor is not None
        await storage.save_progress([progress("reads", cursor.epoch, 6, 20, (7, 9))])
        await storage.release_subscription("reads", cursor.epoch)
    alter(path, ALTERATIONS["payload"])
    async with SqliteEventStorage(path) as storage:
        reads, live = Recorder(), Recorder()
        bus = InMemoryEventBus(storage)
        bus.subscribe(Tick, reads, name="reads", start="beginning")
        bus.subscribe(Note, live, name="live")
        async with bus:
            await bus.publish(Note("after"))
            await live.reaches(1)
            await bus.drain(timeout=60)
            assert 7 not in reads.numbers
            assert bus.health().status == "failing"


@pytest.mark.parametrize(
    ("table", "sql"),
    [
        ("cursor", "UPDATE subscriptions SET unfinished = x'C1FF'"),
        ("retry", "UPDATE retries SET failures = x'FF00'"),
    ],
)
async def test_undecodable_subscription_state_raises_a_corrupt_log_error(
    path: Path, table: str, sql: str
) -> None:
    """If stored state cannot be decoded, the decoding library's error must not reach the caller."""
    await filled(path)
    async with SqliteEventStorage(path) as storage:
        cursor = await storage.open_subscription("s", "beginning")
        assert cursor is not None
        retry = pending(5)
        await storage.save_progress([progress("s", cursor.epoch, 4, 20, (5,), retries=(retry,))])
        await storage.release_subscription("s", cursor.epoch)
    alter(path, sql)
    async with SqliteEventStorage(path) as storage:
        with pytest.raises(CorruptLogError, match="bookkeeping"):
            await storage.open_subscription("s", "now")
        assert await storage.store_event(Tick("A")) == 21
        if table == "cursor":
            with pytest.raises(CorruptLogError, match="bookkeeping"):
                await storage.list_subscriptions()


async def test_a_damaged_scheduled_event_does_not_delay_the_others(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The damaged event is not released, but the one behind it is."""
    bad, good, later = ticks(3)
    async with SqliteEventStorage(path) as storage:
        for due_at, event in ((100.0, bad), (101.0, good), (500.0, later)):
            await storage.schedule_event(event, due_at)
    alter(path, "UPDATE scheduled SET payload = x'7B7D' WHERE due_at = 100")
    async with SqliteEventStorage(path) as storage:
        assert await storage.release_due(200.0) == 500.0
        assert [envelope.event async for envelope in storage.read()] == [good]
        assert bad.event_id in (await storage.check())[0]
        assert "not released" in caplog.text


@pytest.mark.parametrize("damaged", [2, 3, 4, 6, 7])
async def test_a_full_release_batch_of_damaged_scheduled_events_does_not_block_the_rest(
    path: Path, monkeypatch: pytest.MonkeyPatch, damaged: int
) -> None:
    """If a whole batch is damaged, it would be read again and again, and no other event released."""
    monkeypatch.setattr(schedule, "_DUE_AT_ONCE", 3)
    *bad, later = ticks(damaged + 1)
    good = ticks(5)
    async with SqliteEventStorage(path) as storage:
        for due_at, event in enumerate([*bad, *good], 100):
            await storage.schedule_event(event, float(due_at))
        await storage.schedule_event(later, 500.0)
    alter(path, f"UPDATE scheduled SET payload = x'7B7D' WHERE due_at < {100 + damaged}")
    async with SqliteEventStorage(path) as storage:
        following = [await storage.release_due(200.0) for _ in range(2)]
        assert following == [200.0, 500.0], "a few for each commit, and then none before the next is due"
        assert [envelope.event async for envelope in storage.read()] == good
        assert len(await storage.check()) == damaged


async def test_a_damaged_dead_letter_is_not_returned(path: Path) -> None:
    """A dead letter contains a copy of the event, protected by a checksum like the event itself."""
    await filled(path)
    async with SqliteEventStorage(path) as storage:
        cursor = await storage.open_subscription("s", "beginning")
        assert cursor is not None
        await storage.save_progress([progress("s", cursor.epoch, 20, 20, parked=(parked(5), parked(6)))])
    alter(path, "UPDATE dead_letters SET payload = x'7B7D' WHERE position = 5")
    async with SqliteEventStorage(path) as storage:
        first, second = (1, 2)
        with pytest.raises(CorruptDeadLetterError, match="dead letter 1, of the event at position 5, is"):
            await storage.get_dead_letter(first)
        with pytest.raises(CorruptDeadLetterError):
            await storage.begin_retry(first, None, 0.0)
        assert (await storage.get_dead_letter(second)).position == 6


@pytest.mark.parametrize("column", ["payload = x'7B7D'", "failures = x'00'"])
async def test_check_finds_a_damaged_dead_letter_and_it_can_be_discarded(path: Path, column: str) -> None:
    """No dead letter could be listed any more, and nothing said which one to remove, or removed it."""
    await filled(path)
    async with SqliteEventStorage(path) as storage:
        cursor = await storage.open_subscription("s", "beginning")
        assert cursor is not None
        await storage.save_progress([progress("s", cursor.epoch, 20, 20, parked=(parked(5), parked(6)))])
    alter(path, f"UPDATE dead_letters SET {column} WHERE position = 5")
    async with SqliteEventStorage(path) as storage:
        [problem] = await storage.check()
        assert "dead letter 1" in problem
        with pytest.raises(CorruptDeadLetterError):
            await storage.list_dead_letters()
        assert (await storage.discard_dead_letter(1)).position == 5
        assert [letter.id for letter in await storage.list_dead_letters()] == [2]
        assert await storage.check() == []


async def test_check_reports_problems_in_a_badly_damaged_file(path: Path) -> None:
    """``check`` is meant for damaged files: it must return the problems rather than raise."""
    events = await filled(path)
    async with SqliteEventStorage(path) as storage:
        await storage.store_events([Tick("B", n, "x" * 500) for n in range(500)])
    data = bytearray(path.read_bytes())
    for page in range(len(data) // 4096 // 3, len(data) // 4096 // 2):
        data[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    path.write_bytes(data)
    async with SqliteEventStorage(path) as storage:
        assert await storage.check() != []
        served: list[Any] = []
        with pytest.raises(CorruptLogError):
            await read_into(served, storage)
        assert served[:20] == events


def progress(
    name: str, epoch: int, watermark: int, frontier: int, unfinished: tuple[int, ...] = (), **more: Any
) -> Progress:
    return Progress(name, epoch, watermark, frontier, unfinished, **more)


def pending(position: int) -> PendingRetry:
    return PendingRetry(position, 1, 0.0)


def parked(position: int) -> ParkedDelivery:
    return ParkedDelivery(position, "given up", (), 0.0, None)


async def test_rebuilding_a_log_with_a_damaged_scheduled_event_fails_and_leaves_no_file(
    path: Path, tmp_path: Path
) -> None:
    """Promise 38. A rebuilt file is guaranteed to be intact, so it must not contain a damaged event."""
    async with SqliteEventStorage(path) as storage:
        await storage.schedule_event(Tick("A"), 100.0)
    alter(path, "UPDATE scheduled SET payload = x'7B7D'")
    async with SqliteEventStorage(path) as storage:
        with pytest.raises(CorruptLogError, match="scheduled event"):
            await storage.rebuild(tmp_path / "new.db")
    assert not list(tmp_path.glob("new.db*"))


async def test_query_reads_an_application_table_with_invalid_utf8(path: Path) -> None:
    """One such text among thousands would make the whole table unreadable."""
    async with SqliteEventStorage(path) as storage:
        await storage.transact(lambda tx: tx.execute("CREATE TABLE names (name TEXT)"))
        await storage.transact(
            lambda tx: tx.execute("INSERT INTO names VALUES ('kim'), (CAST(x'FF' AS TEXT))")
        )
        rows = await storage.query("SELECT name FROM names ORDER BY name")
        assert rows == [("kim",), ("\udcff",)]
