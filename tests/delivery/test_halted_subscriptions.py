"""A subscription with ``on_exhausted="stop"`` halts alone, and its bus can still be drained."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
from tests.bus.support import Recorder, statistics_of
from tests.delivery.harness import Harness

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage, RetryPolicy


class TemperatureRead(DomainEvent):
    degrees: int


@pytest.mark.parametrize("stored", [False, True], ids=["without storage", "with storage"])
async def test_a_halted_subscription_does_not_keep_drain_waiting(stored: bool) -> None:
    """The failed delivery would stay pending for ever: drain() would hang, and the queue would fill."""
    bus = InMemoryEventBus(event_storage=InMemoryEventStorage() if stored else None)
    seen: list[int] = []

    async def reject_two(event: TemperatureRead) -> None:
        seen.append(event.degrees)
        if event.degrees == 2:
            raise ValueError(event.degrees)

    bus.subscribe(TemperatureRead, reject_two, name="reject-two", retry_count=0, on_exhausted="stop")
    await bus.start()
    await bus.publish_batch([TemperatureRead(degrees) for degrees in range(6)])
    await bus.drain(timeout=60)
    assert max(seen) == 2, "nothing after the failed event is handled"
    assert bus.get_statistics()["queue_size"] == 0
    assert bus.health().status == "failing"
    await bus.stop()


async def test_controls_read_before_a_halt_was_recorded_do_not_resume_the_subscription(
    harness: Harness,
) -> None:
    """A slow read of controls would take a halt not yet recorded for one that was resumed.

    The subscription would get its event once more for each such read.
    """
    handler, poison = harness.handler, ValueError("poison")
    handler.failures = {1: poison}
    harness.subscribe(retry=RetryPolicy(max_attempts=1), on_exhausted="stop")
    consumer = harness.bus._engine.consumers["sub"]
    controls = harness.bus._engine.feed.controls  # type: ignore[union-attr]

    await harness.publish(1)
    await harness.clock.settle()
    assert controls._recorded_halts == {"sub": consumer.epoch}
    handler.gate.clear()
    await harness.resume()
    await handler.entered.reach(2)

    async def halt_again() -> None:
        handler.gate.set()
        await harness.clock.settle()
        assert controls._recorded_halts == {"sub": consumer.epoch}

    harness.storage.after_call["read_controls"] = halt_again
    await controls.apply_requests()
    await harness.clock.settle()
    assert handler.entered == [1, 1], "one publish and one resume make two attempts"
    assert statistics_of(harness.bus, "sub")["state"] == "halted"


class Picky(DomainEvent):
    """An event that cannot be made while its number is in ``broken``."""

    broken: ClassVar[set[int]] = set()
    n: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n in self.broken:
            raise ValueError("cannot be read")


class Reopened(DomainEvent):
    """An event whose ``aggregate_id`` raises for the numbers in ``broken``."""

    broken: ClassVar[set[int]] = set()
    n: int

    @property
    def aggregate_id(self) -> str:
        if self.n in Reopened.broken:
            raise LookupError("no such piece")
        return f"piece {self.n}"


@pytest.mark.parametrize(
    ("kind", "broken"), [(Reopened, {2}), (Picky, {2, 3})], ids=["without a key", "unreadable"]
)
async def test_a_subscription_that_halts_while_it_is_opened_stops_at_the_first_event_in_question(
    kind: type[Reopened | Picky], broken: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is unfinished behind it would stay pending for ever, or a later event be named as the cause."""
    bus = InMemoryEventBus(InMemoryEventStorage(), worker_count=4)
    handled: Recorder[int] = Recorder()
    gate = asyncio.Event()

    async def handle(event: Any) -> None:
        if event.n < 4:
            await gate.wait()
        handled.add(event.n)

    bus.subscribe(kind, handle, name="sub", on_exhausted="stop")
    await bus.start()
    await bus.publish_batch([kind(n) for n in range(1, 5)])
    await handled.reach(1)
    await bus.stop(timeout=0)
    monkeypatch.setattr(kind, "broken", broken)
    gate.set()
    async with bus:
        assert bus._engine.is_halted("sub")
        await bus.drain(timeout=10)
        assert "position 2" in statistics_of(bus, "sub")["reason"]
        assert bus.get_statistics()["queue_size"] == 0
        monkeypatch.setattr(kind, "broken", set[int]())
        assert await bus.resume("sub")
        await bus.drain(timeout=60)
    assert sorted(handled) == [1, 2, 3, 4]
