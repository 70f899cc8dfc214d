"""What ``trim`` deletes, and what it never deletes. Promise 33."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pabal import DomainEvent, InMemoryEventBus, NotRetryableError, RetryPolicy, SqliteEventStorage
from pabal.errors import StorageUnavailableError, SubscriptionInUseError, UsageError
from pabal.ports.storage import Progress
from pabal.storage.sqlite import retention
from pabal.storage.sqlite.transaction import Transaction


class Filed(DomainEvent):
    """An event; each drawer is a stream."""

    drawer: str
    n: int

    @property
    def aggregate_id(self) -> str:
        """Return the drawer."""
        return self.drawer


def filed(count: int, start: int = 0) -> list[Filed]:
    """Return events spread over three drawers."""
    return [Filed(f"drawer-{n % 3}", n) for n in range(start, start + count)]


async def numbers(storage: SqliteEventStorage) -> list[int]:
    """Return the numbers of the events left in the log."""
    return [envelope.event.n async for envelope in storage.read()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a path for the log."""
    return tmp_path / "log.db"


async def test_trim_keeps_the_newest_events_and_positions_continue(path: Path) -> None:
    """If a position were assigned twice, a subscription would skip the second event."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(filed(30))
        assert (await storage.trim(max_events=10)).deleted == 20
        assert await numbers(storage) == list(range(20, 30))
        assert await storage.trim(max_events=1) == retention.Trimmed(9)
    async with SqliteEventStorage(path) as storage:
        assert await storage.store_event(Filed("drawer-0", 30)) == 31
        assert await storage.check() == []


async def test_a_stream_continues_its_versions_after_all_its_events_are_trimmed(path: Path) -> None:
    """If a version were assigned twice, two writers would both believe that they were first."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(filed(30))
        await storage.store_event(Filed("another", 99))
        await storage.trim(max_events=1)
        assert await storage.get_events_by_aggregate("drawer-0") == []
        await storage.store_event(Filed("drawer-0", 100))
        versions = [e.stream_version async for e in storage.read() if e.event.drawer == "drawer-0"]
        assert versions == [11]
    async with SqliteEventStorage(path) as storage:
        await storage.store_event(Filed("drawer-0", 101))
        versions = [e.stream_version async for e in storage.read() if e.event.drawer == "drawer-0"]
        assert versions == [11, 12]
        assert await storage.check() == []


async def test_max_age_is_measured_from_the_recording_time(path: Path) -> None:
    """An event of the past that was only just recorded is new to every subscription."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(filed(10))
        assert (await storage.trim(max_age=timedelta(hours=1))).deleted == 0
        await storage._do(lambda tx: tx.execute("UPDATE events SET recorded_at = 0 WHERE position <= 6"))
        assert (await storage.trim(max_age=timedelta(hours=1))).deleted == 6
        assert await storage.head() == 10


async def test_trim_deletes_nothing_above_the_lowest_watermark(path: Path) -> None:
    """Promise 33. An event deleted before its handler ran is lost."""
    handled: list[int] = []

    async def handle(event: Filed) -> None:
        handled.append(event.n)

    async with SqliteEventStorage(path) as storage:
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Filed, handle, name="clerk")
            await bus.publish_batch(filed(10))
        await storage.store_events(filed(10, start=10))
        trimmed = await storage.trim(max_events=1)
        assert trimmed == retention.Trimmed(10, ("clerk",))
        assert await numbers(storage) == list(range(10, 20))
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Filed, handle, name="clerk")
            await bus.drain(60)
        assert sorted(handled) == list(range(20))


async def test_a_dry_run_reports_what_trim_would_delete_and_what_holds_it_back(path: Path) -> None:
    """Operators must know how much would be deleted before they confirm."""
    async with SqliteEventStorage(path) as storage:
        assert await storage.trim(max_events=1, dry_run=True) == retention.Trimmed(0)
        cursor = await storage.open_subscription("slow", "now")
        assert cursor is not None
        await storage.store_events(filed(30))
        would = await storage.trim(max_events=10, dry_run=True)
        assert would == retention.Trimmed(0, ("slow",))
        await storage.save_progress([Progress("slow", cursor.epoch, 12, 12, ())])
        would = await storage.trim(max_events=10, dry_run=True)
        assert would == retention.Trimmed(12, ("slow",))
        assert await numbers(storage) == list(range(30))
        assert await storage.trim(max_events=10) == would
        assert await storage.trim(max_events=10, dry_run=True) == retention.Trimmed(0, ("slow",))


async def test_trim_keeps_the_events_of_a_pending_reset(path: Path) -> None:
    """The holder may carry out the reset minutes later; the events to deliver again would be gone by then."""
    async with SqliteEventStorage(path) as storage:
        cursor = await storage.open_subscription("slow", "now")
        assert cursor is not None
        await storage.store_events(filed(30))
        await storage.save_progress([Progress("slow", cursor.epoch, 30, 30, ())])
        assert await storage.request_reset("slow", 12) is None
        assert await storage.trim(max_events=1) == retention.Trimmed(12, ("slow",))
        assert await numbers(storage) == list(range(12, 30))


@pytest.mark.parametrize("call", ["request_reset", "reset_subscription", "request_replay"])
async def test_a_trim_keeps_events_requested_between_two_of_its_commits(
    path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request was accepted, but the trim went on to the bound it had computed before."""
    for size in ("SLICE_FIRST", "SLICE_LEAST", "SLICE_MOST"):
        monkeypatch.setattr(retention, size, 5)
    async with SqliteEventStorage(path) as storage:
        cursor = await storage.open_subscription("slow", "now")
        assert cursor is not None
        await storage.store_events(filed(30))
        await storage.save_progress([Progress("slow", cursor.epoch, 30, 30, ())])
        commit, requested = retention.Pace.commit, False

        async def commit_and_request(pace: retention.Pace, action: Any) -> Any:
            nonlocal requested
            result = await commit(pace, action)
            if not requested:
                requested = True
                if call == "request_replay":
                    await storage.request_replay("slow", 1, 30)
                elif call == "request_reset":
                    await storage.request_reset("slow", "beginning")
                else:
                    await storage.reset_subscription("slow", "beginning", epoch=cursor.epoch)
            return result

        monkeypatch.setattr(retention.Pace, "commit", commit_and_request)
        assert (await storage.trim(max_events=1)).deleted == 5
        assert await numbers(storage) == list(range(5, 30))


async def test_a_trim_pauses_only_while_events_are_being_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a trim of an unused file would pause for three quarters of its time."""
    now, head = 100.0, 7
    pauses: list[float] = []

    async def do(action: Any) -> Any:
        nonlocal now
        now += 0.25
        return "done", 0.001, head

    async def rest(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)

    monkeypatch.setattr(retention, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(retention, "asyncio", SimpleNamespace(sleep=rest))
    pace = retention.Pace(do)
    for _ in range(3):
        assert await pace.commit(lambda tx: "done") == "done"
    head = 8  # an event is published
    for _ in range(3):
        await pace.commit(lambda tx: "done")
    assert pauses == [0.75, 0.0, 0.0, 0.75, 0.0, 0.0]


async def test_trim_keeps_events_queued_behind_a_dead_letter_and_its_payload(path: Path) -> None:
    """Promise 33. The watermark has passed these events, but they are not finished."""
    handled: list[int] = []
    broken = True

    async def handle(event: Filed) -> None:
        if broken and event.n == 3:
            raise NotRetryableError("the drawer is stuck")
        handled.append(event.n)

    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Filed, handle, name="clerk", on_exhausted="park_key")
        await bus.publish_batch(filed(12))
        await bus.drain(60)
        assert sorted(handled) == [0, 1, 2, 4, 5, 7, 8, 10, 11]
        # Position 7 (number 6) queues behind the parked number 3 at position 4.
        assert (await storage.trim(max_events=1)).deleted == 6
        broken = False
        (letter,) = await bus.dead_letters.list()
        assert letter.event == Filed("drawer-0", 3)
        assert await bus.dead_letters.retry("all") == 1
        await bus.drain(60)
        assert handled[-3:] == [3, 6, 9]


async def test_a_trim_in_several_slices_deletes_exactly_the_oldest_events(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single commit for a million events would block every publisher."""
    monkeypatch.setattr(retention, "SLICE_FIRST", 7)
    monkeypatch.setattr(retention, "SLICE_MOST", 7)
    monkeypatch.setattr(retention, "SLICE_LEAST", 7)
    commit, commits = retention.Pace.commit, 0

    async def count_commit(pace: retention.Pace, action: Any) -> Any:
        nonlocal commits
        commits += 1
        return await commit(pace, action)

    monkeypatch.setattr(retention.Pace, "commit", count_commit)
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(filed(50))
        assert (await storage.trim(max_events=5)).deleted == 45
        assert commits >= 7, "seven events at a time"
        assert await numbers(storage) == list(range(45, 50))
        assert await storage.check() == []


async def entries_of_streams(storage: SqliteEventStorage) -> int:
    """Return the number of entries in the index of streams."""
    found: int = await storage.transact(lambda tx: tx.execute("SELECT count(*) FROM streams").fetchone()[0])
    return found


@pytest.mark.parametrize("gathered", [1, 8, 1000])
async def test_trim_deletes_the_stream_index_entries_of_trimmed_events(
    path: Path, monkeypatch: pytest.MonkeyPatch, gathered: int
) -> None:
    """Otherwise the index would grow for ever, although the log does not."""
    monkeypatch.setattr(retention, "GATHERED", gathered)
    monkeypatch.setattr(retention, "SLICE_FIRST", 7)
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(filed(50))
        await storage.trim(max_events=5)
        assert await entries_of_streams(storage) == 5
        pages = await storage.transact(lambda tx: tx.execute("PRAGMA wal_autocheckpoint").fetchone())
        assert pages == (8000,), "a trim moves fewer pages at once, and only a trim"
        await storage.trim(max_events=1)
        assert await entries_of_streams(storage) == 3  # the newest entry of each drawer


async def test_a_trim_that_fails_leaves_the_usual_checkpoints(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every commit after it would move few pages at a time; bulk inserts would be slow until a restart."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(filed(50))
        real = retention.trim_slice

        def fail(*arguments: Any, **named: Any) -> Any:
            path.rename(path.with_name("elsewhere"))  # so that the commit fails
            return real(*arguments, **named)

        monkeypatch.setattr(retention, "trim_slice", fail)
        pages = await storage.transact(lambda tx: tx.execute("PRAGMA wal_autocheckpoint").fetchone())
        assert pages == (8000,)
        with pytest.raises(StorageUnavailableError):
            await storage.trim(max_events=5)
        path.with_name("elsewhere").rename(path)
        pages = await storage.transact(lambda tx: tx.execute("PRAGMA wal_autocheckpoint").fetchone())
        assert pages == (8000,)


async def test_the_stream_index_does_not_grow_with_repeated_trims(path: Path) -> None:
    """Each trim keeps the newest entry of every stream, which has to go at a later one."""
    async with SqliteEventStorage(path) as storage:
        for n in range(4):
            await storage.store_events(filed(6, 6 * n))
            await storage.trim(max_events=1)
        assert await entries_of_streams(storage) == 3
        await storage.store_events(filed(6, 24))
        rows = await storage.read_stream("drawer-0", None, limit=2)
        assert [row.stream_version for row in rows] == [9, 10], "a page holds no entries of trimmed events"


async def test_a_rebuilt_file_continues_the_versions_of_trimmed_streams(path: Path, tmp_path: Path) -> None:
    """Two writers would both believe that they were first, as after a trim that forgot the versions."""
    copy = tmp_path / "copy.db"
    async with SqliteEventStorage(path) as storage:
        await storage.store_events([*filed(30), Filed("last", 30)])
        await storage.trim(max_events=1)
        listed = await storage.list_streams()
        await storage.rebuild(copy)
    async with SqliteEventStorage(copy) as storage:
        assert await storage.list_streams() == listed
        await storage.store_event(Filed("drawer-0", 31))
        assert [row.stream_version for row in await storage.read_stream("drawer-0", None)] == [11]
        assert await storage.check() == []


async def test_a_rebuild_warns_if_the_versions_of_trimmed_streams_cannot_be_read(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged index is what a rebuild is for; but the versions lost with it must not go unnoticed."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(filed(30))
        await storage.trim(max_events=1)
        page = (await storage.query("SELECT rootpage FROM sqlite_schema WHERE name = 'streams'"))[0][0]
        size = (await storage.query("PRAGMA page_size"))[0][0]
    data = bytearray(path.read_bytes())
    data[(page - 1) * size : (page - 1) * size + 8] = bytes(8)
    path.write_bytes(data)
    async with SqliteEventStorage(path) as storage:
        assert await storage.rebuild(tmp_path / "copy.db") == 1
    assert "may begin again at version 1" in caplog.text


async def test_an_interrupted_trim_leaves_a_consistent_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are deleted before their entries in the index of streams; that must not look like damage."""

    def fail(tx: Transaction, entries: list[retention.Entry]) -> None:
        raise RuntimeError("broken off")

    async with SqliteEventStorage(path) as storage:
        await storage.store_events(filed(50))
        monkeypatch.setattr(retention, "trim_streams", fail)
        with pytest.raises(RuntimeError, match="broken off"):
            await storage.trim(max_events=20)
    async with SqliteEventStorage(path) as storage:
        assert await entries_of_streams(storage) == 50
        assert await storage.check() == []
        kept = await storage.get_events_by_aggregate("drawer-0")
        assert [event.n for event in kept if isinstance(event, Filed)] == list(range(30, 50, 3))
        await storage.store_event(Filed("drawer-0", 50))
        assert [e.stream_version async for e in storage.read() if e.event == Filed("drawer-0", 50)] == [18]


def test_the_size_of_a_trim_slice_follows_the_time_the_last_one_took() -> None:
    """Promise 33. On a slow disk, each slice of a fixed size would block publishers for long."""
    assert retention.next_size(100, 10 * retention.SLICE_SECONDS) == retention.SLICE_LEAST
    assert retention.next_size(1000, 2 * retention.SLICE_SECONDS) == 500
    assert retention.next_size(100, retention.SLICE_SECONDS / 10) == 200
    assert retention.next_size(1900, 0.0) == retention.SLICE_MOST


async def test_trim_names_an_abandoned_subscription_that_can_then_be_forgotten(path: Path) -> None:
    """Otherwise a handler that was removed years ago would make the log grow for ever."""

    async def handle(event: Filed) -> None:
        raise AssertionError("nobody publishes while it runs")

    async with SqliteEventStorage(path) as storage:
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Filed, handle, name="long-gone")
            await bus.drain(60)
            with pytest.raises(SubscriptionInUseError, match="long-gone"):
                await storage.forget_subscription("long-gone")
        await storage.store_events(filed(10))
        assert (await storage.trim(max_events=1)).held_back_by == ("long-gone",)
        assert await storage.forget_subscription("long-gone")
        assert not await storage.forget_subscription("long-gone")
        assert await storage.trim(max_events=1) == retention.Trimmed(9)
        assert await storage.list_subscriptions() == []


@pytest.mark.parametrize(
    "limit", [{"max_age": timedelta(days=-1)}, {"max_events": -1}, {"max_bytes": -1}], ids=str
)
async def test_a_trim_with_a_negative_limit_raises_a_usage_error(path: Path, limit: dict[str, Any]) -> None:
    """A wrong sign would delete all events but the newest."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(filed(3))
        with pytest.raises(UsageError, match=f"{next(iter(limit))} is .*cannot be negative"):
            await storage.trim(**limit)
        assert await numbers(storage) == [0, 1, 2]


async def test_a_trim_by_an_age_without_unit_raises_a_usage_error(path: Path) -> None:
    """A number of days would end in a TypeError about a comparison."""
    async with SqliteEventStorage(path) as storage:
        with pytest.raises(UsageError, match=r"max_age is 30; .* such as timedelta\(days=30\)"):
            await storage.trim(max_age=30)  # type: ignore[arg-type]


async def test_a_trim_without_a_limit_raises_a_usage_error(path: Path) -> None:
    """A forgotten argument must not empty the log."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(filed(3))
        with pytest.raises(UsageError, match="max_age"):
            await storage.trim()
        assert await numbers(storage) == [0, 1, 2]


@pytest.mark.parametrize("cause", ["waits behind a parked event", "waits for a retry", "is to be replayed"])
async def test_trim_names_the_subscription_that_holds_it_back(path: Path, cause: str) -> None:
    """Promise 33. Otherwise the log would grow, and ``trim`` would not say what holds it back."""

    async def handle(event: Filed) -> None:
        if event.n == 0 and cause == "waits behind a parked event":
            raise NotRetryableError("not today")
        if event.n == 1 and cause == "waits for a retry":
            raise ValueError("later")

    async with SqliteEventStorage(path) as storage:
        bus = InMemoryEventBus(storage)
        retry = RetryPolicy(base_delay=3600, max_delay=3600)
        bus.subscribe(Filed, handle, name="slow", retry=retry, on_exhausted="park_key")
        await bus.start()
        await bus.publish_batch(filed(12))
        await bus.drain(60, retries=False)
        await bus.stop()
        if cause == "is to be replayed":
            await storage.request_replay("slow", 2, 4)
        trimmed = await storage.trim(max_events=1)
        assert trimmed.deleted < 11
        assert trimmed.held_back_by == ("slow",)
