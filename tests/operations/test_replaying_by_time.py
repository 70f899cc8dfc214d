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


class Seen:
    """A durable bus on a file, and what its handler has received."""

    def __init__(self, path: Path) -> None:
        self.quantities: list[int] = []
        self.bus: InMemoryEventBus = EventBusFactory.create_default_event_bus(path)
        self.bus.subscribe(ShopOrder, self.note, name="note")

    async def note(self, event: ShopOrder) -> None:
        self.quantities.append(event.quantity)


async def middle(operations: Operations) -> tuple[datetime, datetime]:
    """Return when the second and the third of three events entered the log."""
    events = [event async for event in operations.read()]
    return events[1].recorded_at, events[2].recorded_at


async def test_a_live_bus_delivers_again_what_lies_between_two_times(tmp_path: Path) -> None:
    """An operator who knows when a fault began would first have to look up a position."""
    seen = Seen(tmp_path / "log.db")
    async with seen.bus:
        for quantity in (1, 2, 3):
            await seen.bus.publish(ShopOrder("o", quantity))
        await seen.bus.drain(timeout=30)
        operations = operations_of(seen.bus)
        since, until = await middle(operations)
        assert (await operations.replay("note", since, until)).count == 1
        await seen.bus.drain(timeout=30)
        assert seen.quantities == [1, 2, 3, 2]
        assert (await operations.replay("note", since)).count == 2
        await seen.bus.drain(timeout=30)
        assert seen.quantities == [1, 2, 3, 2, 2, 3]
        with pytest.raises(UsageError, match="hold nothing to replay"):
            await operations.replay("note", until, since)
        [_, entry, _] = await operations.audit()
        assert entry.details == {"first": since.isoformat().replace("+00:00", "Z"), "last": None}


async def test_what_is_asked_of_a_file_by_time_is_delivered_at_the_next_start(tmp_path: Path) -> None:
    """Times would be accepted only by a running bus."""
    seen = Seen(tmp_path / "log.db")
    async with seen.bus:
        for quantity in (1, 2, 3):
            await seen.bus.publish(ShopOrder("o", quantity))
        await seen.bus.drain(timeout=30)
    async with open_operations(tmp_path / "log.db") as operations:
        since, until = await middle(operations)
        assert (await operations.replay("note", since, until)).pending
    async with seen.bus:
        await seen.bus.drain(timeout=30)
    assert seen.quantities == [1, 2, 3, 2]
