"""Dead letters and the queues behind them are bounded: then a subscription halts and drops nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pabal import InMemoryEventBus, NotRetryableError
from pabal.delivery import bookkeeping, feed, pages, redelivery
from pabal.ports.telemetry import EventDropped, SubscriptionHalted
from tests.brokers.events import until
from tests.bus.samples import Moved
from tests.bus.support import Backend, Seen, by_piece, figures, numbers, reports_of


class Broken:
    """A handler that refuses every event, or those of one key, until it is repaired."""

    def __init__(self, piece: str | None = None) -> None:
        self.piece = piece
        self.mended = False
        self.handled: Seen[Moved] = Seen()

    async def handle(self, event: Moved) -> None:
        if not self.mended and self.piece in (None, event.piece):
            raise NotRetryableError("broken")
        self.handled.add(event)


async def test_a_subscription_halts_when_there_are_too_many_dead_letters(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 24. A handler that fails all night would fill the disk, or events would be dropped."""
    monkeypatch.setattr(redelivery, "MOST_KEPT", 5)
    bus = await stored.running(worker_count=1)
    broken, healthy = Broken(), Broken("nobody")
    bus.subscribe(Moved, broken, name="broken")
    bus.subscribe(Moved, healthy, name="healthy")
    halted = reports_of(bus, SubscriptionHalted)
    await bus.publish_batch([Moved("A", n) for n in range(20)])
    await bus.drain(60)
    assert len(await bus.dead_letters.list()) == 5
    assert figures(bus, "broken")["state"] == "halted"
    assert "the limit of dead letters" in halted[0].reason
    assert numbers(healthy.handled) == list(range(20))
    broken.mended = True
    assert await bus.resume("broken")
    await bus.drain(60)
    assert numbers(broken.handled) == list(range(5, 20))
    assert await bus.dead_letters.retry("all") == 5
    await bus.drain(60)
    assert sorted(numbers(broken.handled)) == list(range(20))


async def test_a_subscription_halts_when_too_much_queues_behind_a_parked_event(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 25. A queue must stay complete and in order, so none of it may be left out to save room."""
    monkeypatch.setattr(redelivery, "MOST_KEPT", 8)
    bus = await stored.running(worker_count=1)
    broken = Broken("A")
    bus.subscribe(Moved, broken, name="broken", on_exhausted="park_key")
    for n in range(30):
        await bus.publish(Moved("AB"[n % 2], n))
        await bus.drain(60)
    assert figures(bus, "broken")["state"] == "halted"
    [record] = await bus.subscriptions.list()
    assert (record.parked, record.queued) == (1, 7)
    bus = await stored.again(bus)
    bus.subscribe(Moved, broken, name="broken", on_exhausted="park_key")
    await bus.start()
    await bus.drain(60)
    assert figures(bus, "broken")["state"] == "halted"
    broken.mended = True
    monkeypatch.setattr(redelivery, "MOST_KEPT", 100)
    assert await bus.resume("broken")
    assert await bus.dead_letters.retry("all") == 1
    await bus.drain(60)
    assert by_piece(broken.handled) == {"A": list(range(0, 30, 2)), "B": list(range(1, 30, 2))}
    assert bus._engine.redelivery.waiting == 0


async def test_without_a_log_a_subscription_halts_too_when_too_much_queues_behind_a_parked_event() -> None:
    """The queue is in memory, and would use it up unnoticed."""
    bus = InMemoryEventBus(worker_count=1)
    bus._engine.dead_letters._limit = 8
    broken = Broken("A")
    bus.subscribe(Moved, broken, name="broken", on_exhausted="park_key")
    halted, dropped = reports_of(bus, SubscriptionHalted), reports_of(bus, EventDropped)
    async with bus:
        for n in range(20):
            await bus.publish(Moved("A", n))
            await bus.drain(60)
        assert figures(bus, "broken")["state"] == "halted"
        assert "the limit of dead letters, or of events queued behind them" in halted[0].reason
        assert len(dropped) == 12
        broken.mended = True
        assert await bus.resume("broken")
        assert await bus.dead_letters.retry("all") == 1
        await bus.drain(60)
        assert numbers(broken.handled) == list(range(8))


@pytest.mark.parametrize("live", [True, False])
async def test_dead_letters_that_are_not_saved_yet_are_bounded(
    stored: Backend, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    """A handler that fails at once over a long backlog would fill the memory while the disk is slow."""
    for module in (feed, pages):
        monkeypatch.setattr(module, "BUFFER_HIGH", 64)
    monkeypatch.setattr(feed, "BUFFER_LIVE", 64)
    for module in (bookkeeping, feed):
        monkeypatch.setattr(module, "BUFFER_LOW", 32)
    monkeypatch.setattr(feed, "_PAGE", 16)
    bus = await stored.running(worker_count=1)
    storage = bus.storage
    assert storage is not None
    save, is_slow, saving = storage.save_progress, asyncio.Event(), asyncio.Event()

    async def slowly(changes: Any) -> Any:
        saving.set()
        await is_slow.wait()
        return await save(changes)

    monkeypatch.setattr(storage, "save_progress", slowly)
    if live:
        bus.subscribe(Moved, Broken(), name="broken")
        await bus.publish(Moved("A", 0))
        await saving.wait()
        for n in range(1, 1000):
            await bus.publish(Moved(str(n), n))
    else:
        await bus.publish_batch([Moved(str(n), n) for n in range(1000)])
        bus.subscribe(Moved, Broken(), name="broken", start="beginning")
    engine = bus._engine
    reader, consumer = engine.feed, engine.consumers["broken"]
    assert reader is not None
    await until(lambda: not engine.pending and reader._wake is not None and bool(consumer.unsaved.parked))
    assert consumer.figures.parked < 1000 / 2
    is_slow.set()
    await bus.drain(60)
    assert len(await bus.dead_letters.list(limit=2000)) == 1000
