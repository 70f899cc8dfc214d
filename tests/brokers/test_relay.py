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
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.server import Server


def make_target_bus(server: Server, namespace: str, recorder: Recorder | None = None) -> RedisEventBus:
    bus = RedisEventBus(server.url, group="world", namespace=namespace, partitions=4, lease=2.0)
    if recorder is not None:
        bus.subscribe(Moved, recorder, name="sub", start="beginning")
    return bus


async def test_committed_local_events_are_relayed_once_and_in_order(
    shared_server: Server, namespace: str, tmp_path: Path
) -> None:
    """Committed events could never reach the bus, or reach it out of order."""
    recorder = Recorder()
    async with (
        SqliteEventStorage(tmp_path / "local.db") as storage,
        make_target_bus(shared_server, namespace, recorder) as bus,
    ):
        await storage.store_events(moves(5, 30))
        async with relay(storage, bus, batch=7) as relaying:
            await storage.store_events([Moved(f"k{number % 5}", number) for number in range(30, 60)])
            await relaying.drain(timeout=30)
            assert relaying.carried == 60
        await storage.store_event(Moved("k0", 60))
        async with relay(storage, bus) as relaying:
            await relaying.drain(timeout=30)
            assert relaying.carried == 1
        await bus.drain(timeout=30)
        stored: list[Envelope] = [envelope async for envelope in storage.read()]
    for key in range(5):
        assert recorder.by_key[f"k{key}"] == list(range(key, 61, 5))
    assert stored[0].event.causation_id is None


async def test_a_batch_relayed_again_after_a_crash_is_stored_once(
    shared_server: Server, namespace: str, tmp_path: Path
) -> None:
    """A crash between publishing a batch and saving the relay's progress must not repeat the batch."""
    recorder = Recorder()
    async with (
        SqliteEventStorage(tmp_path / "local.db") as storage,
        make_target_bus(shared_server, namespace, recorder) as bus,
    ):
        events = moves(3, 20)
        await storage.store_events(events)
        await bus.publish_batch(events[:10])  # as if the process had died after publishing
        async with relay(storage, bus) as relaying:
            await relaying.drain(timeout=30)
        await bus.drain(timeout=30)
    assert sorted(recorder.numbers) == list(range(20))


async def test_the_relay_waits_for_a_server_that_is_down(
    own_server: Server, namespace: str, tmp_path: Path
) -> None:
    """While the server is away, no events may be lost."""
    recorder = Recorder()
    async with SqliteEventStorage(tmp_path / "local.db") as storage:
        bus = make_target_bus(own_server, namespace, recorder)
        await bus.start()
        async with relay(storage, bus) as relaying:
            await asyncio.to_thread(own_server.kill)
            await storage.store_events(moves(3, 20))
            assert relaying.carried == 0
            await asyncio.to_thread(own_server.start)
            await relaying.drain(timeout=60)
        await bus.drain(timeout=60)
        await bus.stop()
    assert sorted(recorder.numbers) == list(range(20))


class ObservedBus(InMemoryEventBus):
    """A bus that records that ``publish_batch`` was called, whether it runs or not."""

    def __init__(self) -> None:
        super().__init__()
        self.publish_called = asyncio.Event()

    async def publish_batch(self, events: Iterable[Any]) -> list[Receipt]:
        self.publish_called.set()
        return await super().publish_batch(events)


async def test_the_relay_waits_for_a_stopped_bus(tmp_path: Path) -> None:
    """A relay started before its bus, or stopped after it, would park all events committed meanwhile."""
    async with SqliteEventStorage(tmp_path / "local.db") as storage:
        await storage.store_events(moves(3, 20))
        bus, recorder = ObservedBus(), Recorder()
        bus.subscribe(Moved, recorder, name="sub")
        async with relay(storage, bus) as relaying:
            await bus.publish_called.wait()
            await until(lambda: relaying.health().status == "degraded")
            assert "waits for the bus" in relaying.health().reasons[0]
            await bus.start()
            await relaying.drain(timeout=60)
            assert relaying.health().status == "ok"
            await bus.drain(timeout=60)
            await bus.stop()
        assert await storage.list_dead_letters() == []
    assert sorted(recorder.numbers) == list(range(20))


async def test_an_event_of_a_class_the_relay_has_not_imported_is_parked_not_lost(tmp_path: Path) -> None:
    """If it were skipped, it would never reach the bus, and a trim of the local log would delete it."""
    bus, recorder = InMemoryEventBus(), Recorder()
    bus.subscribe("*", recorder, name="sub")
    async with SqliteEventStorage(tmp_path / "local.db") as storage:
        with registry.isolated():

            class Elsewhere(Moved):
                event_type = "relay-test.elsewhere"

            await storage.store_events([Elsewhere("a", 1), Moved("a", 2)])
        async with bus, relay(storage, bus) as relaying:
            await relaying.drain(timeout=60)
            assert relaying.health().status == "degraded"
            (letter,) = await storage.list_dead_letters()
            assert "import the module that defines it" in letter.reason
            with registry.isolated():

                class Imported(Moved):
                    event_type = "relay-test.elsewhere"

                await operations_of(storage).retry_matching(DeadLetterFilter(subscription="relay"))
                await until(lambda: relaying.health().status == "ok")
                await relaying.drain(timeout=60)
                await bus.drain(timeout=60)
    assert recorder.numbers == [2, 1]
