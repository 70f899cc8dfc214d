"""``start()`` on a log with unfinished work."""

from __future__ import annotations

import asyncio
import sys

import pytest

from pabal import InMemoryEventBus
from pabal.errors import InsideHandlerError, StorageUnavailableError
from pabal.ports.telemetry import StorageTrouble
from pabal.testing import VirtualClock
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import ONE_ATTEMPT, Backend, Recorder, reports_of, statistics_of


@pytest.mark.parametrize("others", [1, 8])
async def test_a_handler_can_publish_from_the_first_delivery_of_a_backlog(
    stored: Backend, others: int
) -> None:
    """If handlers ran while the bus still opens subscriptions, it would reject what they publish.

    Observed in the trading demo, restarted after kill -9: deliveries failed with "the bus is starting".
    """
    storage = stored.storage()
    assert storage is not None
    await storage.append_events([Moved("rook", n) for n in range(500)])
    bus = InMemoryEventBus(event_storage=storage)

    async def answer(event: Moved) -> None:
        await bus.publish(NoteTaken(event.n))

    async def ignore(event: NoteTaken) -> None:
        return

    bus.subscribe(Moved, answer, name="answer", start="beginning", retry=ONE_ATTEMPT)
    for number in range(others):
        bus.subscribe(NoteTaken, ignore, name=f"other-{number}", start="beginning")
    async with bus:
        await bus.drain(60)
        assert statistics_of(bus, "answer")["failed_attempts"] == 0
        assert statistics_of(bus, "other-0")["handled"] == 500


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python has no eager tasks before 3.12")
async def test_a_backlog_is_delivered_correctly_in_a_loop_with_eager_tasks(stored: Backend) -> None:
    """Eager tasks run when they are created: the first deliveries would run inside ``start()``, where the
    bus rejects their publishes and does not recognise them as its own handlers.
    """
    storage = stored.storage()
    assert storage is not None
    await storage.append_events([Moved("rook", n) for n in range(5)])
    bus = InMemoryEventBus(event_storage=storage)

    async def answer(event: Moved) -> None:
        await bus.publish(NoteTaken(event.n))
        with pytest.raises(InsideHandlerError):
            await bus.drain()

    bus.subscribe(Moved, answer, name="answer", start="beginning", retry=ONE_ATTEMPT)
    loop = asyncio.get_running_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - Python 3.11 has none
    try:
        async with bus:
            await bus.drain(60)
            assert statistics_of(bus, "answer")["failed_attempts"] == 0
            assert bus.get_statistics()["events_published"] == 5
    finally:
        loop.set_task_factory(None)


async def test_a_bus_starts_although_due_events_cannot_be_written_to_its_log_yet(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up at night would keep the application down until it is started again by hand."""
    storage = stored.storage()
    assert storage is not None
    clock = VirtualClock()
    await storage.schedule_event(NoteTaken(1), clock.time())
    release_due = storage.release_due
    full = StorageUnavailableError(path="the disk", reason="full")

    async def fail(now: float) -> float | None:
        raise full

    monkeypatch.setattr(storage, "release_due", fail)
    bus = InMemoryEventBus(event_storage=storage, clock=clock)
    troubles = reports_of(bus, StorageTrouble)
    seen: Recorder[int] = Recorder()

    async def note(event: NoteTaken) -> None:
        seen.add(event.n)

    bus.subscribe(NoteTaken, note, name="note", start="beginning")
    async with bus:
        assert [trouble.error for trouble in troubles] == [full]
        monkeypatch.setattr(storage, "release_due", release_due)
        await clock.advance(1.0)
        await seen.reach(1)
