"""The ``repr`` of a bus and its storage, as in a notebook or a log line."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pabal import DomainEvent, InMemoryEventBus, SqliteEventStorage


class Tapped(DomainEvent):
    event_type: ClassVar[str] = "shown.tapped"


async def test_the_repr_of_a_bus_shows_its_state_and_its_log(tmp_path: Path) -> None:
    """A notebook would show a memory address, which does not say whether the bus runs."""
    assert repr(InMemoryEventBus()) == "<InMemoryEventBus stopped, no log>"
    storage = SqliteEventStorage(tmp_path / "a.db")
    async with InMemoryEventBus(storage) as bus:
        assert repr(bus) == f"<InMemoryEventBus running, log {storage.path}>"
    assert repr(storage) == f"<SqliteEventStorage {storage.path}, open, durability 'full'>"
    storage.close()
    assert repr(storage) == f"<SqliteEventStorage {storage.path}, closed, durability 'full'>"


async def test_the_reason_for_a_halt_names_the_type_of_an_error_without_a_message(
    tmp_path: Path,
) -> None:
    """The reason would read "ValueError: ; fix the cause", as if a part were missing."""

    async def fail(event: Tapped) -> None:
        raise ValueError

    async with InMemoryEventBus(SqliteEventStorage(tmp_path / "a.db"), owns_storage=True) as bus:
        bus.subscribe(Tapped, fail, name="halts", retry_count=0, on_exhausted="stop")
        await bus.publish(Tapped())
        await bus.drain()
        assert "the last error was ValueError; fix the cause" in bus.health().reasons[0]
