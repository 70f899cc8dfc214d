"""A replay can be bounded by times, if positions are not known, on a live or stopped bus."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from pabal import EventBusFactory, InMemoryEventBus
from pabal.errors import UsageError
from pabal.factory import open_operations
from pabal.operations import Operations, operations_of
from tests.operations.conftest import ShopOrder


class Consumer:
    """A durable bus on a file, and what its handler has received."""

    def __init__(self, path: Path) -> None:
        self.quantities: list[int] = []
        self.bus: InMemoryEventBus = EventBusFactory.create_default_event_bus(path)
        self.bus.subscribe(ShopOrder, self.note, name="note")

    async def note(self, event: ShopOrder) -> None:
        self.quantities.append(event.quantity)


async def last_two_times(operations: Operations) -> tuple[datetime, datetime]:
    """Return when the second and the third of three events entered the log."""
    events = [event async for event in operations.read()]
    return events[1].recorded_at, events[2].recorded_at


async def test_replay_between_two_times_redelivers_the_events_on_a_live_bus(tmp_path: Path) -> None:
    """An operator who knows when a fault began would first have to look up a position."""
    consumer = Consumer(tmp_path / "log.db")
    async with consumer.bus:
        for quantity in (1, 2, 3):
            await consumer.bus.publish(ShopOrder("o", quantity))
        await consumer.bus.drain(timeout=30)
        operations = operations_of(consumer.bus)
        since, until = await last_two_times(operations)
        assert (await operations.replay("note", since, until)).count == 1
        await consumer.bus.drain(timeout=30)
        assert consumer.quantities == [1, 2, 3, 2]
        assert (await operations.replay("note", since)).count == 2
        await consumer.bus.drain(timeout=30)
        assert consumer.quantities == [1, 2, 3, 2, 2, 3]
        with pytest.raises(UsageError, match="hold nothing to replay"):
            await operations.replay("note", until, since)
        [_, entry, _] = await operations.audit()
        assert entry.details == {"first": since.isoformat().replace("+00:00", "Z"), "last": None}


async def test_replay_by_time_on_a_file_is_delivered_at_the_next_start(tmp_path: Path) -> None:
    """Times would be accepted only by a running bus."""
    consumer = Consumer(tmp_path / "log.db")
    async with consumer.bus:
        for quantity in (1, 2, 3):
            await consumer.bus.publish(ShopOrder("o", quantity))
        await consumer.bus.drain(timeout=30)
    async with open_operations(tmp_path / "log.db") as operations:
        since, until = await last_two_times(operations)
        assert (await operations.replay("note", since, until)).pending
    async with consumer.bus:
        await consumer.bus.drain(timeout=30)
    assert consumer.quantities == [1, 2, 3, 2]
