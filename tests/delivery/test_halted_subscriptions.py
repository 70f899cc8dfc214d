"""A subscription with ``on_exhausted="stop"`` halts alone, and its bus can still be drained."""

from __future__ import annotations

import pytest

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage


class TemperatureRead(DomainEvent):
    degrees: int


@pytest.mark.parametrize("stored", [False, True], ids=["without storage", "with storage"])
async def test_a_halted_subscription_does_not_keep_drain_waiting(stored: bool) -> None:
    """The failed delivery would count as pending for ever: drain() would hang, and the queue would fill."""
    bus = InMemoryEventBus(event_storage=InMemoryEventStorage() if stored else None)
    seen: list[int] = []

    async def refuse_two(event: TemperatureRead) -> None:
        seen.append(event.degrees)
        if event.degrees == 2:
            raise ValueError(event.degrees)

    bus.subscribe(TemperatureRead, refuse_two, name="refuse-two", retry_count=0, on_exhausted="stop")
    await bus.start()
    await bus.publish_batch([TemperatureRead(degrees) for degrees in range(6)])
    await bus.drain(timeout=60)
    assert max(seen) == 2, "nothing after the failed event is handled"
    assert bus.get_statistics()["queue_size"] == 0
    assert bus.health().status == "failing"
    await bus.stop()
