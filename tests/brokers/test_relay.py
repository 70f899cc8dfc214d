"""The relay publishes a local log on a server's bus, at least once and in order, even after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.brokers.redis import RedisEventBus, relay
from pabal.domain.envelope import Envelope, Receipt
from pabal.domain.registry import registry
from pabal.operations import operations_of
from pabal.ports.operations import DeadLetterFilter
from tests.brokers.events import Moved, Noted, moves, until
from tests.brokers.server import Server


def target(server: Server, namespace: str, noted: Noted | None = None) -> RedisEventBus:
    bus = RedisEventBus(server.url, group="world", namespace=namespace, partitions=4, lease=2.0)
    if noted is not None:
        bus.subscribe(Moved, noted, name="sub", start="beginning")
    return bus


async def test_the_world_hears_what_was_committed_locally(
    shared_server: Server, namespace: str, tmp_path: Path
) -> None:
    """Committed events could never reach the bus, or reach it out of order."""
    noted = Noted()
    async with (
        SqliteEventStorage(tmp_path / "local.db") as storage,
        target(shared_server, namespace, noted) as bus,
    ):
        await storage.store_events(moves(5, 30))
        async with relay(storage, bus, batch=7) as carrying:
            await storage.store_events([Moved(f"k{number % 5}", number) for number in range(30, 60)])
            await carrying.drain(timeout=30)
            assert carrying.carried == 60
        await storage.store_event(Moved("k0", 60))
        async with relay(storage, bus) as carrying:
            await carrying.drain(timeout=30)
            assert carrying.carried == 1
        await bus.drain(timeout=30)
        stored: list[Envelope] = [envelope async for envelope in storage.read()]
    for key in range(5):
        assert noted.by_key[f"k{key}"] == list(range(key, 61, 5))
    assert stored[0].event.causation_id is None


async def test_what_a_crash_publishes_twice_is_stored_once(
    shared_server: Server, namespace: str, tmp_path: Path
) -> None:
    """A crash between publishing a batch and saving the relay's progress must not repeat the batch."""
    noted = Noted()
    async with (
        SqliteEventStorage(tmp_path / "local.db") as storage,
        target(shared_server, namespace, noted) as bus,
    ):
        events = moves(3, 20)
        await storage.store_events(events)
        await bus.publish_batch(events[:10])  # as if the process had died after publishing
        async with relay(storage, bus) as carrying:
            await carrying.drain(timeout=30)
        await bus.drain(timeout=30)
    assert sorted(noted.numbers) == list(range(20))


async def test_a_server_that_is_away_is_waited_for(
    own_server: Server, namespace: str, tmp_path: Path
) -> None:
    """While the server is away, no events may be lost."""
    noted = Noted()
    async with SqliteEventStorage(tmp_path / "local.db") as storage:
        bus = target(own_server, namespace, noted)
        await bus.start()
        async with relay(storage, bus) as carrying:
            await asyncio.to_thread(own_server.kill)
            await storage.store_events(moves(3, 20))
            assert carrying.carried == 0
            await asyncio.to_thread(own_server.start)
            await carrying.drain(timeout=60)
        await bus.drain(timeout=60)
        await bus.stop()
    assert sorted(noted.numbers) == list(range(20))


class Asked(InMemoryEventBus):
    """A bus that tells when it was asked to publish a batch, whether it runs or not."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def publish_batch(self, events: Iterable[Any]) -> list[Receipt]:
        self.asked.set()
        return await super().publish_batch(events)


async def test_a_bus_that_is_stopped_is_waited_for(tmp_path: Path) -> None:
    """A relay started before its bus, or stopped after it, would park all events committed meanwhile."""
    async with SqliteEventStorage(tmp_path / "local.db") as storage:
        await storage.store_events(moves(3, 20))
        bus, noted = Asked(), Noted()
        bus.subscribe(Moved, noted, name="sub")
        async with relay(storage, bus) as carrying:
            await bus.asked.wait()
            await until(lambda: carrying.health().status == "degraded")
            assert "waits for the bus" in carrying.health().reasons[0]
            await bus.start()
            await carrying.drain(timeout=60)
            assert carrying.health().status == "ok"
            await bus.drain(timeout=60)
            await bus.stop()
        assert await storage.list_dead_letters() == []
    assert sorted(noted.numbers) == list(range(20))


async def test_an_event_of_a_class_that_the_relay_has_not_imported_is_not_lost(tmp_path: Path) -> None:
    """If it were skipped, it would never reach the bus, and a trim of the local log would delete it."""
    bus, noted = InMemoryEventBus(), Noted()
    bus.subscribe("*", noted, name="sub")
    async with SqliteEventStorage(tmp_path / "local.db") as storage:
        with registry.isolated():

            class Elsewhere(Moved):
                event_type = "relay-test.elsewhere"

            await storage.store_events([Elsewhere("a", 1), Moved("a", 2)])
        async with bus, relay(storage, bus) as carrying:
            await carrying.drain(timeout=60)
            assert carrying.health().status == "degraded"
            (letter,) = await storage.list_dead_letters()
            assert "import the module that defines it" in letter.reason
            with registry.isolated():

                class Imported(Moved):
                    event_type = "relay-test.elsewhere"

                await operations_of(storage).retry_matching(DeadLetterFilter(subscription="relay"))
                await until(lambda: carrying.health().status == "ok")
                await carrying.drain(timeout=60)
                await bus.drain(timeout=60)
    assert noted.numbers == [2, 1]
