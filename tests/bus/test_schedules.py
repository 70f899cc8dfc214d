"""``publish(delay=…)`` and ``deliver_at``: events for later, durable if there is a storage."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage
from pabal.errors import InvalidEventError, UsageError
from pabal.storage.sqlite import schedule
from pabal.testing import VirtualClock
from tests.bus.samples import Measured, Moved, NoteTaken
from tests.bus.support import Backend, Recorder, numbers


async def test_a_delayed_event_is_delivered_when_it_is_due_and_not_before(
    backend: Backend, clock: VirtualClock
) -> None:
    """An order that expires in half an hour must expire then, neither at once nor never."""
    bus = await backend.start_bus(clock=clock)
    seen: Recorder[tuple[int, float]] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add((event.n, round(clock.monotonic())))

    bus.subscribe(Moved, handle)
    receipt = await bus.publish(Moved("rook", 1), delay=30)
    assert receipt
    assert receipt.position is None
    await bus.publish(Moved("rook", 2), deliver_at=datetime.fromtimestamp(clock.time() + 10, UTC))
    await bus.publish(Moved("rook", 3))
    await bus.drain(60)
    assert seen == [(3, 0)]
    await clock.advance(9.5)
    await bus.drain(60)
    assert len(seen) == 1
    await clock.advance(1.0)
    await seen.reach(2)
    await clock.advance(19.0)
    await bus.drain(60)
    assert len(seen) == 2
    await clock.advance(1.0)
    await seen.reach(3)
    assert [n for n, _ in seen] == [3, 2, 1]


@pytest.mark.parametrize("delay", [0, -5])
async def test_an_event_scheduled_in_the_past_is_delivered_at_once(
    backend: Backend, clock: VirtualClock, delay: float
) -> None:
    """A time in the past is due now, not never."""
    bus = await backend.start_bus(clock=clock)
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, handle)
    await bus.publish(Moved("rook", 1), delay=delay)
    await bus.publish(Moved("rook", 2), deliver_at=datetime.now(UTC) - timedelta(days=36500))
    await clock.advance(0.1)
    await seen.reach(2)
    assert sorted(seen) == [1, 2]


async def test_all_events_due_at_once_are_delivered_without_advancing_the_clock_again(
    stored: Backend, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 3,000 timeouts due at the same time, a test with its own clock would see only the first 2,000."""
    monkeypatch.setattr(schedule, "_DUE_AT_ONCE", 2)
    bus = await stored.start_bus(clock=clock)
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, handle)
    for number in range(9):
        await bus.publish(Moved("rook", number), delay=30)
    await clock.advance(30)
    await seen.reach(9)
    assert sorted(seen) == list(range(9))


async def test_a_schedule_survives_a_restart(stored: Backend, clock: VirtualClock) -> None:
    """An event accepted for later is as durable as one accepted for now."""
    bus = await stored.start_bus(clock=clock)
    event = Moved("rook", 1)
    await bus.publish(event, delay=20)
    await bus.publish(Moved("rook", 2), delay=5)
    bus = await stored.reopen(bus, clock=clock)
    await clock.advance(10)
    seen: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event)

    bus.subscribe(Moved, handle, start="beginning")
    await bus.start()
    await seen.reach(1)
    assert numbers(seen) == [2]
    await clock.advance(10.5)
    await seen.reach(2)
    assert seen[1] == event
    assert seen[1].event_id == event.event_id


async def test_a_scheduled_event_keeps_the_causation_id_of_its_handler(
    backend: Backend, clock: VirtualClock
) -> None:
    """The cause is the event that led to the schedule, not the one being handled when it is due."""
    bus = await backend.start_bus(clock=clock)
    seen: Recorder[NoteTaken] = Recorder()

    async def on_moved(event: Moved) -> None:
        await bus.publish(NoteTaken(1), delay=5)

    async def on_note_taken(event: NoteTaken) -> None:
        seen.add(event)

    bus.subscribe(Moved, on_moved)
    bus.subscribe(NoteTaken, on_note_taken)
    receipt = await bus.publish(Moved("rook"))
    await bus.drain(60)
    await clock.advance(6)
    await seen.reach(1)
    assert seen[0].causation_id == receipt.event_id


async def test_publish_rejects_an_invalid_schedule(backend: Backend) -> None:
    """Both options together, or a time without an offset, are ambiguous: the event could come any time."""
    bus = await backend.start_bus()
    now = datetime.now(UTC)
    with pytest.raises(UsageError, match="not both"):
        await bus.publish(Moved("rook"), delay=1, deliver_at=now)
    with pytest.raises(UsageError, match="aware"):
        await bus.publish(Moved("rook"), deliver_at=now.replace(tzinfo=None))
    with pytest.raises(UsageError, match="finite number of seconds"):
        await bus.publish(Moved("rook"), delay=10**400)
    with pytest.raises(InvalidEventError):
        await bus.publish(Measured(float("inf")), delay=1)
    with pytest.raises(UsageError, match="delay"):
        await bus.publish(Moved("rook"), delay=float("nan"))
    await bus.drain(60)
    assert bus.get_statistics()["events_scheduled"] == 0


async def test_an_event_that_falls_due_during_a_stop_is_not_delivered(
    memory: Backend, clock: VirtualClock
) -> None:
    """Without a log, a stop handles the queue; if a timer kept adding to it, it would not end."""
    bus = await memory.start_bus(clock=clock)
    entered, leave = asyncio.Event(), asyncio.Event()
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        entered.set()
        await leave.wait()
        seen.add(event.n)

    bus.subscribe(Moved, handle)
    await bus.publish(Moved("rook", 1))
    await bus.publish(Moved("rook", 2), delay=5)
    await entered.wait()
    stopping = asyncio.ensure_future(bus.stop(timeout=600))
    await clock.advance(10)
    assert bus.get_statistics()["queue_size"] == 1
    leave.set()
    await stopping
    assert seen == [1]


class AdjustedClock(VirtualClock):
    """A clock whose time of day is ``behind`` by some seconds, while its timers continue."""

    behind = 0.0

    def time(self) -> float:
        """Return seconds since 1970."""
        return super().time() - self.behind


async def test_setting_the_clock_back_delays_scheduled_events_but_loses_none(stored: Backend) -> None:
    """The timer fires before the event is due. If not set again, the event would wait for the next start."""
    clock = AdjustedClock()
    bus = await stored.start_bus(clock=clock)
    seen: Recorder[int] = Recorder()

    async def handle(event: NoteTaken) -> None:
        seen.add(event.n)

    bus.subscribe(NoteTaken, handle)
    await bus.publish(NoteTaken(1), delay=60)
    clock.behind = 1.0
    await clock.advance(60.5)
    # The timer is set again.
    await bus._engine.background.wait_until(lambda: not bus._engine.background.tasks)
    await bus.drain(60)
    assert seen == []
    await clock.advance(1.0)
    await seen.reach(1)


async def test_a_slow_lookup_of_due_events_does_not_delay_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The event would be late by the time that the lookup took, up to ten seconds."""
    clock, storage = VirtualClock(), InMemoryEventStorage()
    release_due = storage.release_due

    async def slow_release(now: float) -> float | None:
        next_due = await release_due(now)
        await clock.advance(9)  # time passes while others write
        return next_due

    async with InMemoryEventBus(storage, clock=clock) as bus:
        seen: Recorder[int] = Recorder()

        async def handle(event: NoteTaken) -> None:
            seen.add(event.n)

        bus.subscribe(NoteTaken, handle)
        with monkeypatch.context() as patch:
            patch.setattr(storage, "release_due", slow_release)
            await storage.schedule_event(NoteTaken(2), clock.time() + 10)  # as another process would
            await bus.publish(NoteTaken(1), delay=0)
        await clock.advance(1)
        await seen.reach(2)


async def test_setting_the_clock_forward_delivers_scheduled_events_at_the_new_time(on_disk: Backend) -> None:
    """A machine that slept overnight, or started with last year's clock, would deliver hours late."""
    clock = AdjustedClock()
    bus = await on_disk.start_bus(clock=clock)
    seen: Recorder[int] = Recorder()

    async def handle(event: NoteTaken) -> None:
        seen.add(event.n)

    bus.subscribe(NoteTaken, handle)
    await bus.publish(NoteTaken(1), delay=3600)
    clock.behind = -3600.0
    await clock.advance(11)
    await seen.reach(1)


async def test_an_event_scheduled_by_a_stopped_bus_is_delivered_by_another_process(on_disk: Backend) -> None:
    """It would wait in the file until another process starts, even if others are running."""
    clock = VirtualClock()
    running = await on_disk.start_bus(clock=clock)
    seen: Recorder[int] = Recorder()

    async def handle(event: NoteTaken) -> None:
        seen.add(event.n)

    running.subscribe(NoteTaken, handle)
    stopped = await on_disk.start_bus(clock=clock)
    await stopped.publish(NoteTaken(1), delay=30)
    await stopped.stop()
    await clock.advance(29)
    assert seen == []
    await clock.advance(12)
    await seen.reach(1)
