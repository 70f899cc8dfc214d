"""Deliveries of a log go directly to their handler until one has to wait; both paths behave the same."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any, ClassVar

import pytest
from tests.bus.samples import Moved, NoteTaken, Weighed
from tests.bus.support import ONE_ATTEMPT, Recorder, numbers, reports_of, statistics_of
from tests.delivery.harness import Harness

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage, NotRetryableError, RetryPolicy
from pabal.delivery import direct_path
from pabal.ports.telemetry import SubscriptionHalted


class Fickle(DomainEvent):
    """An event whose ``aggregate_id`` raises while ``broken``."""

    event_type: ClassVar[str] = "log-arrivals-test.fickle"
    broken: ClassVar[bool] = False
    n: int

    @property
    def aggregate_id(self) -> str:
        if Fickle.broken:
            raise LookupError("no such piece")
        return "piece"


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> Recorder[int]:
    """Record the slices that are delivered directly."""
    made: Recorder[int] = Recorder()
    deliver = direct_path.deliver_direct_stored

    async def record(worker: Any, arrivals: Any) -> None:
        made.add(len(arrivals))
        await deliver(worker, arrivals)

    monkeypatch.setattr("pabal.delivery.worker.deliver_direct_stored", record)
    return made


async def test_a_dead_letter_waits_for_the_event_of_its_key_that_is_being_handled() -> None:
    """Promise 11. Retried, it would run beside a newer event of its key that is delivered directly."""
    bus = InMemoryEventBus(InMemoryEventStorage(), worker_count=2)
    begun: Recorder[int] = Recorder()
    gate = asyncio.Event()

    async def handle(event: Moved) -> None:
        begun.add(event.n)
        if list(begun) == [1]:
            raise NotRetryableError("not yet")
        if event.n == 2:
            await gate.wait()

    bus.subscribe(Moved, handle, name="mover")
    async with bus:
        await bus.publish(Moved("a", 1))
        await bus.drain(timeout=60)
        await bus.publish(Moved("a", 2))
        await begun.reach(2)
        await bus.dead_letters.retry("all")
        await bus.publish(Moved("b", 3))
        await begun.reach(3)
        assert begun == [1, 2, 3]
        gate.set()
        await bus.drain(timeout=60)
        assert begun == [1, 2, 3, 1]


async def test_what_is_finished_is_saved_while_the_next_handler_of_the_slice_waits() -> None:
    """A process that dies during one slow delivery would repeat all quick ones of its slice."""
    storage = InMemoryEventStorage()
    bus = InMemoryEventBus(storage, worker_count=1)
    begun: Recorder[int] = Recorder()
    gate = asyncio.Event()

    async def handle(event: Moved) -> None:
        begun.add(event.n)
        if event.n == 140:
            await asyncio.gather(
                *(asyncio.sleep(0) for _ in range(20))
            )  # what has finished is saved meanwhile
        if event.n in (200, 250):
            await gate.wait()

    async def watermark() -> int:
        [record] = await storage.list_subscriptions()
        return record.watermark

    bus.subscribe(Moved, handle, name="mover")
    async with bus:
        await bus.publish_batch([Moved(f"p{n}", n) for n in range(1, 251)])
        await begun.until(lambda seen: 200 in seen)
        await bus._engine.settlement.flush()
        assert await watermark() == 199
        gate.set()
        await bus.drain(timeout=60)
        assert await watermark() == 250


async def test_a_subscription_reads_on_when_what_fills_it_is_sorted_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One busy key would take all the room, and a handler that waits for another key would wait for ever."""
    for name, size in (("BUFFER_HIGH", 256), ("BUFFER_LOW", 128)):
        for module in ("feed", "pages", "spilling", "consumer"):
            monkeypatch.setattr(f"pabal.delivery.{module}.{name}", size, raising=False)
    storage = InMemoryEventStorage()
    save = storage.save_progress
    busy, needed, saving = asyncio.Event(), asyncio.Event(), asyncio.Event()
    begun: Recorder[str] = Recorder()

    async def save_later(changes: Any) -> Any:
        saving.set()
        await needed.wait()  # the end of one save makes the bus read on, and so would the next one
        return await save(changes)

    async def pass_by(event: NoteTaken) -> None:
        """Make the bus begin to save."""

    async def hold(event: NoteTaken) -> None:
        begun.add("note")
        await saving.wait()
        await busy.wait()

    async def handle(event: Moved) -> None:
        begun.add(event.piece)
        if event.piece == "needed":
            needed.set()
        await needed.wait()

    async with InMemoryEventBus(storage) as bus:
        await bus.publish(NoteTaken())
        await bus.publish_batch([Moved("busy", n) for n in range(1, 1001)])
        await bus.publish(Moved("needed", 1001))
    bus = InMemoryEventBus(storage, worker_count=2)
    bus.subscribe(NoteTaken, pass_by, name="passer", start="beginning")
    bus.subscribe(NoteTaken, hold, name="holder", start="beginning")
    bus.subscribe(Moved, handle, name="mover", start="beginning")
    monkeypatch.setattr(storage, "save_progress", save_later)
    async with bus:
        await begun.reach(2)
        await bus._engine.background.wait_until(lambda: bus._engine.consumers["mover"].queued >= 256)
        await saving.wait()
        busy.set()
        await bus.drain(timeout=60)
    assert begun[2] == "needed"


async def test_a_failure_on_the_direct_path_keeps_what_follows_in_order(slices: Recorder[int]) -> None:
    """The events behind a failed one of their key would be delivered before its retry."""
    bus = InMemoryEventBus(InMemoryEventStorage(), worker_count=2)
    begun: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        begun.add(event.n)
        if event.n == 3 and Counter(begun)[3] < 3:
            raise ConnectionError("try again")

    bus.subscribe(Moved, handle, name="mover", retry=RetryPolicy(max_attempts=5, base_delay=0.0))
    async with bus:
        await bus.publish_batch([Moved("a", n) for n in range(1, 9)])
        await bus.drain(timeout=60)
    assert begun == [1, 2, 3, 3, 3, 4, 5, 6, 7, 8]
    assert len(slices) > 0


async def test_new_events_stay_behind_those_that_are_still_to_be_sorted() -> None:
    """Sorting takes several turns if much has arrived; what came in between would overtake the rest."""
    bus = InMemoryEventBus(InMemoryEventStorage(), worker_count=1)
    begun: Recorder[int] = Recorder()
    gate = asyncio.Event()

    async def handle(event: Moved) -> None:
        begun.add(event.n)
        await gate.wait()

    bus.subscribe(Moved, handle, name="mover")
    async with bus:
        await bus.publish_batch([Moved("a", n) for n in range(1, 7)])
        await begun.reach(1)
        arrivals = bus._engine.consumers["mover"].arrivals
        arrivals.sort_into_lanes(2)
        await bus.publish(Moved("a", 7))
        await bus._engine.background.wait_until(lambda: len(arrivals) == 4)
        gate.set()
        await bus.drain(timeout=60)
    assert begun == [1, 2, 3, 4, 5, 6, 7]


async def test_a_failed_event_whose_aggregate_id_raises_is_parked() -> None:
    """It has no lane to be retried in: it would be lost, or count as waiting for ever."""
    bus = InMemoryEventBus(InMemoryEventStorage())

    async def handle(event: Fickle) -> None:
        Fickle.broken = event.n == 2
        if Fickle.broken:
            raise ConnectionError("try again")

    bus.subscribe(Fickle, handle, name="sub")
    async with bus:
        await bus.publish_batch([Fickle(n) for n in range(1, 4)])
        await bus.drain(timeout=60)
        [letter] = await bus.dead_letters.list()
        assert letter.reason == "no such piece"
        assert bus._engine.consumers["sub"].queued == 0
        assert statistics_of(bus, "sub")["handled"] == 2


async def test_a_failure_without_a_lane_after_its_subscription_has_ended_is_not_acted_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A removed subscription would be reported as halted, and its event would count as failed."""
    bus = InMemoryEventBus(InMemoryEventStorage(), worker_count=1)
    halted = reports_of(bus, SubscriptionHalted)
    begun: Recorder[int] = Recorder()
    gate = asyncio.Event()

    async def handle(event: Fickle) -> None:
        begun.add(event.n)
        await gate.wait()
        if len(begun) == 1:
            raise ConnectionError("try again")

    subscription = bus.subscribe(Fickle, handle, name="sub", on_exhausted="stop")
    async with bus:
        await bus.publish(Fickle(1))
        await begun.reach(1)
        bus.unsubscribe(subscription)
        monkeypatch.setattr(Fickle, "broken", True)
        gate.set()
        await bus.drain(timeout=60)
        assert halted == []
        monkeypatch.setattr(Fickle, "broken", False)
        bus.subscribe(Fickle, handle, name="sub")
        await begun.reach(2)
        await bus.drain(timeout=60)


async def test_a_delivery_that_outlives_its_opening_is_not_recorded_and_blocks_nothing(
    harness: Harness,
) -> None:
    """What is delivered again would count as finished, or newer events would wait for the old delivery."""
    handler, engine = harness.handler, harness.bus._engine
    handler.gate.clear()
    harness.subscribe()
    await harness.publish(1)
    await handler.entered.reach(1)
    consumer = engine.consumers["sub"]
    await harness.storage.release_subscription("sub", consumer.epoch)
    engine.on_lease_lost(consumer)
    handler.gated = ()
    await harness.clock.advance(10)
    await handler.handled.reach(1)
    await harness.publish(2, 3)
    await handler.handled.reach(3)
    assert consumer.in_flight == 1
    handler.gate.set()
    await harness.drain()
    assert numbers(handler.handled) == [1, 2, 3, 1]
    assert consumer.queued == 0
    assert statistics_of(harness.bus, "sub")["handled"] == 4


async def test_an_event_waits_for_those_of_its_key_that_are_being_read_back(
    harness: Harness, small_buffers: None
) -> None:
    """Promise 11. Nothing is in memory then, and a new event would overtake what was left on disk."""
    harness.subscribe()
    harness.handler.gate.clear()
    harness.handler.gated = ("A",)
    for n in range(0, 50, 5):
        await harness.publish(*range(n, n + 4))
        await harness.publish(n + 4, piece="free")
        await harness.handler.handled.reach(n // 5 + 1)
    consumer = harness.bus._engine.consumers["sub"]
    assert consumer.spilled > 0

    async def publish_later() -> None:
        assert consumer.queued == 0
        await harness.publish(50, 51)
        await harness.clock.settle()

    harness.storage.after_call["read_positions"] = publish_later
    harness.handler.gate.set()
    await harness.drain()
    expected = [*(n for n in range(50) if n % 5 != 4), 50, 51]
    assert [event.n for event in harness.handler.handled if event.piece == "A"] == expected


async def test_a_slice_ends_when_handlers_that_were_quick_become_slow(
    slices: Recorder[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices grow with quick handlers; 256 slow ones in a row would hold up the event loop for seconds."""
    bus = InMemoryEventBus(InMemoryEventStorage())
    seconds = itertools.count()

    async def handle(event: Moved) -> None:
        """Take no time of the real clock."""

    bus.subscribe(Moved, handle, name="mover")
    async with bus:
        await bus.publish_batch([Moved(f"p{n}", n) for n in range(1000)])
        await bus.drain(timeout=60)
        assert bus._engine.consumers["mover"].slice > 50
        monkeypatch.setattr(direct_path, "perf_counter", lambda: float(next(seconds)))
        before = len(slices)
        await bus.publish_batch([Moved(f"p{n}", n) for n in range(50)])
        await bus.drain(timeout=60)
        assert len(slices) - before == 50


async def test_the_events_of_a_slice_survive_a_stop() -> None:
    """A stop in the middle of a slice would lose the events behind the one being handled."""
    storage = InMemoryEventStorage()
    begun: Recorder[int] = Recorder()
    gate = asyncio.Event()

    async def handle(event: Moved) -> None:
        begun.add(event.n)
        if event.n == 2:
            await gate.wait()

    for _ in range(2):
        bus = InMemoryEventBus(storage, worker_count=1)
        bus.subscribe(Moved, handle, name="mover", retry=ONE_ATTEMPT)
        engine = bus._engine
        async with bus:
            if not begun:
                await bus.publish_batch([Moved("a", n) for n in range(1, 6)])
                await begun.reach(2)
                stopping = asyncio.create_task(bus.stop())
                await asyncio.sleep(0)
                assert engine.halting
                gate.set()
                await stopping
            else:
                await bus.drain(timeout=60)
    assert begun == [1, 2, 3, 4, 5]


async def halt_while_sorting(bus: InMemoryEventBus, monkeypatch: pytest.MonkeyPatch, cause: Any) -> None:
    """Let ``cause`` sort an event that halts its subscription, behind one whose handler waits."""
    begun: Recorder[int] = Recorder()
    gate = asyncio.Event()

    async def handle(event: Fickle | Weighed) -> None:
        begun.add(event.n)
        if event.n == 1:
            await gate.wait()

    bus.subscribe((Fickle, Weighed), handle, name="sub", on_exhausted="stop")
    async with bus:
        await bus.publish_batch([Fickle(1), Fickle(2)])
        await begun.reach(1)
        monkeypatch.setattr(Fickle, "broken", True)
        await cause()
        await bus._engine.background.wait_until(lambda: bus._engine.is_halted("sub"))
        gate.set()
        await bus.drain(timeout=10)
        assert bus.get_statistics()["queue_size"] == 0
        monkeypatch.setattr(Fickle, "broken", False)
        assert await bus.resume("sub")
        await bus.drain(timeout=60)
    assert sorted(begun) == [1, 2, 3]


async def test_an_event_that_makes_an_earlier_one_halt_its_subscription_is_delivered_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody would make or forget the delivery, so ``drain`` would wait for it for ever."""
    bus = InMemoryEventBus(InMemoryEventStorage(), worker_count=1)
    await halt_while_sorting(bus, monkeypatch, lambda: bus.publish(Weighed("a", 3)))


async def test_a_retry_that_makes_an_earlier_event_halt_its_subscription_is_made_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody would make or forget the delivery, so ``drain`` would wait for it for ever."""
    storage = InMemoryEventStorage()

    async def refuse(event: Weighed) -> None:
        raise NotRetryableError("not yet")

    async with InMemoryEventBus(storage) as bus:
        bus.subscribe(Weighed, refuse, name="sub")
        await bus.publish(Weighed("a", 3))
        await bus.drain(timeout=60)
    bus = InMemoryEventBus(storage, worker_count=1)
    await halt_while_sorting(bus, monkeypatch, lambda: bus.dead_letters.retry("all"))


async def test_events_that_are_still_to_be_sorted_go_to_the_lower_priority_number_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Promise 16. A subscription added meanwhile would not see that they have yet to be attempted."""
    monkeypatch.setattr("pabal.delivery.worker._SORT_MOST", 4)
    monkeypatch.setattr("pabal.delivery.feed._PAGE", 4)
    storage = InMemoryEventStorage()
    async with InMemoryEventBus(storage) as bus:
        await bus.publish_batch([Moved(f"p{n}", n) for n in range(40)])
    bus = InMemoryEventBus(storage, worker_count=1)
    first: Recorder[int] = Recorder()
    gate = asyncio.Event()

    async def go_first(event: Moved) -> None:
        first.add(event.n)
        await gate.wait()

    async def follow(event: Moved) -> None:
        assert event.n in list(first)

    bus.subscribe(Moved, go_first, name="first", start="beginning", priority=0)
    engine = bus._engine
    async with bus:
        await first.reach(1)
        consumer = engine.consumers["first"]
        assert consumer.tracker is not None
        assert consumer.tracker.seen < 40
        bus.subscribe(Moved, follow, name="second", start="beginning", priority=1, retry=ONE_ATTEMPT)
        await engine.background.wait_until(lambda: consumer.queued == engine.consumers["second"].queued == 40)
        gate.set()
        await bus.drain(timeout=60)
        assert await bus.dead_letters.list() == []
