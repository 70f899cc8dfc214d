"""Dead letters and the queues behind them are bounded: then a subscription halts and drops nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pabal import InMemoryEventBus, NotRetryableError
from pabal.delivery import bookkeeping, feed, pages, redelivery
from pabal.ports.storage import EventStorage
from pabal.ports.telemetry import EventDropped, SubscriptionHalted
from tests.brokers.events import until
from tests.bus.samples import Moved
from tests.bus.support import Backend, Recorder, by_piece, numbers, reports_of, statistics_of


class RejectingHandler:
    """A handler that rejects every event, or those of one key, until it is fixed."""

    def __init__(self, piece: str | None = None) -> None:
        self.piece = piece
        self.fixed = False
        self.handled: Recorder[Moved] = Recorder()

    async def handle(self, event: Moved) -> None:
        if not self.fixed and self.piece in (None, event.piece):
            raise NotRetryableError("broken")
        self.handled.add(event)


async def test_a_subscription_halts_at_the_limit_of_dead_letters(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 24. A handler that fails all night would fill the disk, or events would be dropped."""
    monkeypatch.setattr(redelivery, "MOST_KEPT", 5)
    bus = await stored.start_bus(worker_count=1)
    broken, healthy = RejectingHandler(), RejectingHandler("nobody")
    bus.subscribe(Moved, broken, name="broken")
    bus.subscribe(Moved, healthy, name="healthy")
    halted = reports_of(bus, SubscriptionHalted)
    await bus.publish_batch([Moved("A", n) for n in range(20)])
    await bus.drain(60)
    assert len(await bus.dead_letters.list()) == 5
    assert statistics_of(bus, "broken")["state"] == "halted"
    assert "the limit of dead letters" in halted[0].reason
    assert numbers(healthy.handled) == list(range(20))
    broken.fixed = True
    assert await bus.resume("broken")
    await bus.drain(60)
    assert numbers(broken.handled) == list(range(5, 20))
    assert await bus.dead_letters.retry("all") == 5
    await bus.drain(60)
    assert sorted(numbers(broken.handled)) == list(range(20))


async def test_a_subscription_halts_at_the_limit_of_events_queued_behind_a_dead_letter(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 25. A queue must stay complete and in order, so nothing may be left out to save room."""
    monkeypatch.setattr(redelivery, "MOST_KEPT", 8)
    bus = await stored.start_bus(worker_count=1)
    broken = RejectingHandler("A")
    bus.subscribe(Moved, broken, name="broken", on_exhausted="park_key")
    for n in range(30):
        await bus.publish(Moved("AB"[n % 2], n))
        await bus.drain(60)
    assert statistics_of(bus, "broken")["state"] == "halted"
    [record] = await bus.subscriptions.list()
    assert (record.parked, record.queued) == (1, 7)
    bus = await stored.reopen(bus)
    bus.subscribe(Moved, broken, name="broken", on_exhausted="park_key")
    await bus.start()
    await bus.drain(60)
    assert statistics_of(bus, "broken")["state"] == "halted"
    broken.fixed = True
    monkeypatch.setattr(redelivery, "MOST_KEPT", 100)
    assert await bus.resume("broken")
    assert await bus.dead_letters.retry("all") == 1
    await bus.drain(60)
    assert by_piece(broken.handled) == {"A": list(range(0, 30, 2)), "B": list(range(1, 30, 2))}
    assert bus._engine.redelivery.waiting == 0


async def test_a_subscription_without_a_log_halts_at_the_limit_of_queued_events() -> None:
    """The queue is in memory, and would fill it unnoticed."""
    bus = InMemoryEventBus(worker_count=1)
    bus._engine.dead_letters._limit = 8
    broken = RejectingHandler("A")
    bus.subscribe(Moved, broken, name="broken", on_exhausted="park_key")
    halted, dropped = reports_of(bus, SubscriptionHalted), reports_of(bus, EventDropped)
    async with bus:
        for n in range(20):
            await bus.publish(Moved("A", n))
            await bus.drain(60)
        assert statistics_of(bus, "broken")["state"] == "halted"
        assert "the limit of dead letters, or of events queued behind them" in halted[0].reason
        assert len(dropped) == 12
        broken.fixed = True
        assert await bus.resume("broken")
        assert await bus.dead_letters.retry("all") == 1
        await bus.drain(60)
        assert numbers(broken.handled) == list(range(8))


def shrink_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read at most 16 events at a time, and none while 32 dead letters are not saved."""
    for module in (feed, pages):
        monkeypatch.setattr(module, "BUFFER_HIGH", 64)
    monkeypatch.setattr(feed, "BUFFER_LIVE", 64)
    for module in (bookkeeping, feed):
        monkeypatch.setattr(module, "BUFFER_LOW", 32)
    monkeypatch.setattr(feed, "_PAGE", 16)


class SlowSaves:
    """Make saves of progress wait until ``may_end`` is set."""

    def __init__(self, storage: EventStorage | None, monkeypatch: pytest.MonkeyPatch) -> None:
        assert storage is not None
        self._save, self.begun, self.may_end = storage.save_progress, asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(storage, "save_progress", self._save_slowly)

    async def _save_slowly(self, changes: Any) -> Any:
        self.begun.set()
        await self.may_end.wait()
        return await self._save(changes)


@pytest.mark.parametrize("live", [True, False])
async def test_the_number_of_unsaved_dead_letters_is_bounded(
    stored: Backend, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    """A handler that fails at once over a long backlog would fill the memory while the disk is slow."""
    shrink_buffers(monkeypatch)
    bus = await stored.start_bus(worker_count=1)
    saves = SlowSaves(bus.storage, monkeypatch)
    if live:
        bus.subscribe(Moved, RejectingHandler(), name="broken")
        await bus.publish(Moved("A", 0))
        await saves.begun.wait()
        for n in range(1, 1000):
            await bus.publish(Moved(str(n), n))
    else:
        await bus.publish_batch([Moved(str(n), n) for n in range(1000)])
        bus.subscribe(Moved, RejectingHandler(), name="broken", start="beginning")
    engine = bus._engine
    reader, consumer = engine.feed, engine.consumers["broken"]
    assert reader is not None
    await until(lambda: not engine.pending and reader._wake is not None and consumer.unsaved.is_full)
    assert consumer.figures.parked < 1000 / 2
    saves.may_end.set()
    await bus.drain(60)
    assert len(await bus.dead_letters.list(limit=2000)) == 1000


async def test_reading_continues_while_dead_letters_are_saved(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that stopped for unsaved dead letters would sleep through the whole save that takes them."""
    shrink_buffers(monkeypatch)
    bus = await stored.start_bus(worker_count=1)
    saves = SlowSaves(bus.storage, monkeypatch)
    await bus.publish_batch([Moved(str(n), n) for n in range(500)])
    engine, counted = bus._engine, asyncio.Event()
    monkeypatch.setattr(engine.tally, "wait_until_counted", counted.wait)  # saves wait for counts
    bus.subscribe(Moved, RejectingHandler(), name="broken", start="beginning")
    reader, consumer = engine.feed, engine.consumers["broken"]
    assert reader is not None
    await until(lambda: not engine.pending and reader._wake is not None and consumer.unsaved.is_full)
    counted.set()
    await saves.begun.wait()
    await until(lambda: bool(consumer.unsaved.parked))
    saves.may_end.set()
    await bus.drain(60)
    assert len(await bus.dead_letters.list(limit=1000)) == 500
