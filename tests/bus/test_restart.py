"""A bus that owns its storage closes it when it stops, and opens it when it starts again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pabal import DomainEvent, EventBusFactory
from pabal.errors import StorageClosedError


class Rung(DomainEvent):
    """An event to publish."""

    n: int


async def test_the_default_bus_can_be_restarted_repeatedly(tmp_path: Path) -> None:
    """Promise 7. Otherwise a stop would be final, since no caller can give the bus another storage."""
    bus = EventBusFactory.create_default_event_bus(tmp_path / "bell.db")
    handled: list[int] = []

    async def handle(event: Rung) -> None:
        handled.append(event.n)

    bus.subscribe(Rung, handle, name="sub")
    for n in range(5):
        async with bus:
            await bus.publish(Rung(n))
    assert handled == [0, 1, 2, 3, 4]


async def test_a_stopped_default_bus_holds_no_open_file(tmp_path: Path) -> None:
    """On some systems an open file cannot be deleted."""
    bus = EventBusFactory.create_default_event_bus(tmp_path / "bell.db")
    async with bus:
        await bus.publish(Rung(1))
    assert bus.storage is not None
    with pytest.raises(StorageClosedError):
        await bus.storage.store_event(Rung(2))
    assert [path.name for path in tmp_path.iterdir()] == ["bell.db"]
