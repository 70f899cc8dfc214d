"""Cursors, retries with their delays, dead letters and scheduled events survive a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pabal import InMemoryEventBus, NotRetryableError, RetryPolicy, SqliteEventStorage
from pabal.errors import DeadLetterNotFoundError
from pabal.operations import operations_of
from pabal.ports.operations import DeadLetterFilter
from pabal.ports.telemetry import EventParked
from pabal.storage.sqlite import schedule
from pabal.testing import VirtualClock
from tests.storage.events import Note, Recorder, Tick, ticks


async def wait_until(bus: InMemoryEventBus, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        await bus._engine.background.wait_until(condition)


def fail_permanently(event: Any) -> None:
    raise NotRetryableError("bad")


async def test_a_restart_delivers_only_the_unfinished_events_again(path: Path) -> None:
    """After a restart from the cursor, no event may be skipped or repeated."""
    blocked = asyncio.Event()
    first, second = Recorder(), Recorder()

    async def hold(event: Tick) -> None:
        if event.number == 3:
            await blocked.wait()
        await first.handle(event)

    async with SqliteEventStorage(path) as storage:
        bus = InMemoryEventBus(storage)
        bus.subscribe(Tick, hold, name="s", ordering=None)
        await bus.start()
        await bus.publish_batch(ticks(6))
        await first.reaches(5)
        await bus.stop(timeout=0.01)
    assert sorted(first.numbers) == [1, 2, 4, 5, 6]
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, second, name="s", ordering=None)
        await bus.drain(timeout=60)
    assert second.numbers == [3]


async def test_a_retry_due_in_a_minute_runs_after_a_minute_across_a_restart(path: Path) -> None:
    """Promise 23: restarted at 30 s, the retry runs at 60 s, neither at once nor at 90 s."""
    policy = RetryPolicy(max_attempts=3, base_delay=60, max_delay=60, jitter=0)
    failed = Recorder(before=None)

    async def fail(event: Tick) -> None:
        await failed.handle(event)
        raise ConnectionError("try later")

    clock = VirtualClock()
    async with SqliteEventStorage(path) as storage:
        bus = InMemoryEventBus(storage, clock=clock)
        bus.subscribe(Tick, fail, name="s", retry=policy)
        await bus.start()
        await bus.publish(Tick("A", 1))
        await failed.reaches(1)
        await wait_until(bus, lambda: bus._engine.settlement.idle)
        await clock.advance(30)
        await bus.stop()
    later = VirtualClock(start=clock.time())
    seen: list[tuple[float, int]] = []

    async def succeed(event: Tick, context: Any) -> None:
        seen.append((later.monotonic(), context.attempt))

    async with SqliteEventStorage(path) as storage:
        bus = InMemoryEventBus(storage, clock=later)
        bus.subscribe(Tick, succeed, name="s", retry=policy)
        await bus.start()
        await bus.drain(retries=False, timeout=60)
        await later.advance(29)
        assert seen == []
        await later.advance(2)
        await bus.drain(timeout=60)
        await bus.stop()
    ((at, attempt),) = seen
    assert at == pytest.approx(30, abs=1)
    assert attempt == 2


async def test_a_narrowed_subscription_drops_retries_of_types_it_no_longer_takes(path: Path) -> None:
    """Otherwise they would count as retrying, and hold back ``trim`` until the next restart."""
    later = RetryPolicy(base_delay=3600, max_delay=3600)

    async def fail(event: Tick | Note) -> None:
        raise ConnectionError("try later")

    async with SqliteEventStorage(path) as storage:
        bus = InMemoryEventBus(storage)
        bus.subscribe(Tick, fail, name="s", retry=later)
        await bus.start()
        await bus.publish_batch(ticks(3))
        await bus.drain(retries=False, timeout=60)
        await bus.stop()
    async with SqliteEventStorage(path) as storage:
        bus = InMemoryEventBus(storage)
        bus.subscribe(Note, fail, name="s", retry=later)
        await bus.start()
        await bus.publish_batch([Tick("A", 4), Tick("A", 5)])
        await bus.drain(timeout=60)
        assert bus.get_statistics()["subscriptions"]["s"]["retrying"] == 0
        await bus.stop()
        [record] = await storage.list_subscriptions()
        assert (record.retries, record.watermark) == (0, 5)
        assert (await storage.trim(max_events=1)).deleted == 4


async def test_a_retry_saved_with_a_clock_a_year_ahead_runs_after_its_normal_delay(path: Path) -> None:
    """Promise 23. Once the clock is right, it and its key would wait for a year, with the health still ok."""
    policy = RetryPolicy(max_attempts=3, base_delay=60, max_delay=60)
    failed, seen = Recorder(), Recorder()

    async def fail(event: Tick) -> None:
        await failed.handle(event)
        raise ConnectionError("try later")

    right = VirtualClock()
    async with SqliteEventStorage(path) as storage:
        bus = InMemoryEventBus(storage, clock=VirtualClock(start=right.time() + 365 * 86_400))
        bus.subscribe(Tick, fail, name="s", retry=policy)
        await bus.start()
        await bus.publish(Tick("A", 1))
        await failed.reaches(1)
        await wait_until(bus, lambda: bus._engine.settlement.idle)
        await bus.stop()
    async with SqliteEventStorage(path) as storage:
        bus = InMemoryEventBus(storage, clock=right)
        bus.subscribe(Tick, seen, name="s", retry=policy)
        await bus.start()
        await bus.publish(Tick("A", 2))
        await bus.drain(retries=False, timeout=60)
        await right.advance(61)
        await seen.reaches(2)
        await bus.stop()
    assert seen.numbers == [1, 2]


async def test_an_event_scheduled_before_a_restart_is_published_on_time(path: Path) -> None:
    """A reminder scheduled for tomorrow must not be lost with today's process."""
    clock = VirtualClock()
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage, clock=clock) as bus:
        await bus.publish(Tick("A", 1), delay=60)
        await clock.advance(30)
    later = VirtualClock(start=clock.time())
    seen = Recorder()
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage, clock=later) as bus:
        bus.subscribe(Tick, seen, name="s")
        await bus.drain(timeout=60)
        await later.advance(29)
        assert await storage.head() == 0
        await later.advance(2)
        await seen.reaches(1)
        await bus.drain(timeout=60)


async def test_rescheduling_an_event_changes_nothing_and_other_content_under_its_id_raises(
    any_storage: Any,
) -> None:
    """The same rule as for publishing: an id identifies one event."""
    event = Tick("A", 1)
    await any_storage.schedule_event(event, 100.0)
    await any_storage.schedule_event(event, 200.0)
    with pytest.raises(Exception, match="different content"):
        await any_storage.schedule_event(Tick("A", 2, event_id=event.event_id), 100.0)
    assert await any_storage.release_due(50.0) == 100.0
    assert await any_storage.head() == 0
    assert await any_storage.release_due(100.0) is None
    await any_storage.schedule_event(event, 300.0)  # it is in the log by now
    assert await any_storage.release_due(1000.0) is None
    assert await any_storage.head() == 1


async def test_a_scheduled_event_whose_id_was_taken_does_not_block_the_others(
    any_storage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A conflict raised at every release would keep all scheduled events out of the log for ever."""
    scheduled, other = ticks(2)
    await any_storage.schedule_event(scheduled, 100.0)
    await any_storage.schedule_event(other, 101.0)
    await any_storage.store_event(Tick("B", 9, event_id=scheduled.event_id))
    assert await any_storage.release_due(200.0) is None
    assert [envelope.event.number async for envelope in any_storage.read()] == [9, other.number]
    assert "is dropped" in caplog.text


async def test_a_scheduled_event_of_an_unknown_class_still_enters_the_log(path: Path) -> None:
    """Another process may have its class; this one reports it like any unknown type."""
    from pabal.domain.registry import registry

    seen = Recorder()
    with registry.isolated():

        class Foreign(Tick):
            event_type = "storage-test.foreign"

        async with SqliteEventStorage(path) as storage:
            await storage.schedule_event(Foreign("A", 1), 100.0)
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe("*", seen, name="all", start="beginning")
        await bus.publish(Note("after"))
        await seen.reaches(1)
        await bus.drain(timeout=60)
        assert await storage.head() == 2
        assert bus.get_statistics()["subscriptions"]["all"]["skipped"] == 1
        assert bus.health().status == "degraded"
        assert "skipped 1 event of an unregistered type" in bus.health().reasons[0]


@pytest.mark.parametrize("runs", [True, False])
async def test_retrying_a_dead_letter_of_a_removed_class_does_not_stop_the_bus(
    path: Path, runs: bool
) -> None:
    """The command line can retry it without its class; that stopped its subscription, and later any start."""
    from pabal.domain.registry import registry

    with registry.isolated():

        class Foreign(Tick):
            event_type = "storage-test.removed"

        async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
            bus.subscribe("*", Recorder(before=fail_permanently), name="all", on_exhausted="park_key")
            await bus.publish_batch([Foreign("A", 1), Tick("A", 2)])
            await bus.drain(60)
    seen = Recorder()
    parked = asyncio.Event()
    async with SqliteEventStorage(path) as storage:
        bus = InMemoryEventBus(storage)
        bus.listen(lambda report: parked.set() if isinstance(report, EventParked) else None)
        bus.subscribe("*", seen, name="all", on_exhausted="park_key")
        if runs:
            await bus.start()
        assert (await operations_of(storage).retry_matching(DeadLetterFilter())).count == 1
        await bus.start()
        async with asyncio.timeout(60):
            await parked.wait()
        await bus.publish(Note("after"))
        await bus.drain(60)
        (letter,) = await bus.dead_letters.list()
        assert (letter.state, letter.queued, len(letter.attempts)) == ("parked", 1, 2)
        assert "import the module that defines it" in letter.reason
        await bus.dead_letters.discard(letter.id)
        await seen.reaches(2)
        await bus.stop()
    assert [type(event) for event in seen.seen] == [Note, Tick]


async def test_a_dead_letter_survives_a_restart_and_can_be_retried(path: Path) -> None:
    """Its attempts and its event must be restored completely."""
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, Recorder(before=fail_permanently), name="s")
        await bus.publish_batch([Tick("A", 1), Tick("A", 2)])
        await bus.drain(timeout=60)
    seen = Recorder()
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, seen, name="s")
        first, second = await bus.dead_letters.list()
        assert (first.event, second.event) == (Tick("A", 1), Tick("A", 2))
        assert [attempt.error_type for attempt in first.attempts] == ["NotRetryableError"]
        assert await bus.dead_letters.retry(first.id) == 1
        await bus.drain(timeout=60)
        assert seen.numbers == [1]
        assert [letter.id for letter in await bus.dead_letters.list()] == [second.id]
        await bus.dead_letters.discard(second.id)
        with pytest.raises(DeadLetterNotFoundError):
            await storage.get_dead_letter(second.id)


async def test_parked_and_filtered_events_move_the_saved_watermark(path: Path) -> None:
    """Promise 30: parked and filtered events move the watermark, so a restart reads few events again."""
    wanted = Recorder()
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Note, wanted, name="rare")
        bus.subscribe(Tick, Recorder(before=fail_permanently), name="parks")
        bus.subscribe(Tick, Recorder(), name="filters", where=lambda event: event.number == 999)
        for start in range(0, 3000, 1000):
            await bus.publish_batch([*ticks(999, first=start + 1), Note(f"{start}")])
        await bus.drain(timeout=20)
    assert len(wanted.seen) == 3
    async with SqliteEventStorage(path) as storage:
        for record in await storage.list_subscriptions():
            assert 3000 - record.watermark <= 1000, record
            assert record.unfinished == 0
            assert record.parked == (2997 if record.name == "parks" else 0)


@pytest.mark.parametrize("start", ["beginning", "now", 4, "moment"])
async def test_a_new_subscription_starts_where_its_start_says(any_storage: Any, start: Any) -> None:
    """Promise 31. This holds for events published while it subscribes, too."""
    await any_storage.store_events(ticks(4))
    moment = datetime.now(UTC)
    await any_storage.store_events(ticks(4, first=5))
    seen = Recorder()
    async with InMemoryEventBus(any_storage) as bus:
        publishing = asyncio.gather(*(bus.publish(tick) for tick in ticks(5, "B", first=9)))
        bus.subscribe(Tick, seen, name="new", start=moment if start == "moment" else start, ordering=None)
        await publishing
        await bus.publish(Tick("B", 99))
        await bus.drain(timeout=60)
    old = {"beginning": 1, "now": 9, 4: 5, "moment": 5}[start]
    assert set(seen.numbers) >= {*range(old, 9), 99}
    assert len(seen.numbers) == len(set(seen.numbers))
    assert min(seen.numbers) >= old


async def test_a_known_subscription_continues_and_ignores_start(any_storage: Any) -> None:
    """``start="beginning"`` in the code must not replay everything at every start of the program."""
    for round_number in range(3):
        seen = Recorder()
        async with InMemoryEventBus(any_storage) as bus:
            bus.subscribe(Tick, seen, name="known", start="beginning")
            await bus.publish(Tick("A", round_number))
            await bus.drain(timeout=60)
        assert seen.numbers == [round_number]


async def test_scheduled_events_released_in_several_commits_keep_the_order_of_their_times(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long stop all are due at once; those that do not fit into one commit must follow in order."""
    monkeypatch.setattr(schedule, "_DUE_AT_ONCE", 3)
    async with SqliteEventStorage(path) as storage:
        for number in (7, 3, 1, 6, 2, 5, 4):
            await storage.schedule_event(Tick("A", number), float(number))
        await storage.schedule_event(Tick("A", 8), 500.0)
        assert await storage.release_due(100.0) == 100.0, "there is more, so the next release is due at once"
        assert await storage.release_due(100.0) == 100.0
        assert await storage.release_due(100.0) == 500.0
        assert [e.event.number async for e in storage.read()] == [1, 2, 3, 4, 5, 6, 7]
