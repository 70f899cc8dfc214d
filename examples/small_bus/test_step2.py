"""The tests of step 2. None of them sleeps: handlers wait for asyncio events, tests wait for ``drain``."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest

from examples.small_bus.step1_interface import Event, OrderPlaced
from examples.small_bus.step2_worker_pool import PooledBus


@pytest.fixture
async def bus() -> AsyncIterator[PooledBus]:
    bus = PooledBus(workers=4, delay=0.0)
    await bus.start()
    yield bus
    await bus.stop()


async def test_publish_does_not_wait_for_the_handler(bus: PooledBus) -> None:
    resume = asyncio.Event()
    seen: list[Event] = []

    async def slow(event: Event) -> None:
        await resume.wait()
        seen.append(event)

    bus.subscribe(OrderPlaced, slow, name="slow")
    await bus.publish(OrderPlaced("o-1", 5))
    assert seen == []
    resume.set()
    await bus.drain()
    assert len(seen) == 1


async def test_a_failing_handler_is_retried_and_does_not_affect_other_handlers(bus: PooledBus) -> None:
    attempts: list[Event] = []
    seen: list[Event] = []

    async def broken(event: Event) -> None:
        attempts.append(event)
        raise ConnectionError("the ledger is down")

    async def fine(event: Event) -> None:
        seen.append(event)

    bus.subscribe(OrderPlaced, broken, name="broken")
    bus.subscribe(OrderPlaced, fine, name="fine")
    await bus.publish(OrderPlaced("o-1", 5))
    await bus.drain()
    assert len(attempts) == 3
    assert len(seen) == 1
    assert [event.key for event, _ in bus.given_up] == ["o-1"]


async def test_events_of_one_key_are_handled_in_order(bus: PooledBus) -> None:
    handled: defaultdict[str, list[int]] = defaultdict(list)

    async def note(event: Event) -> None:
        assert isinstance(event, OrderPlaced)
        await asyncio.sleep(0)  # here another worker could overtake
        handled[event.key].append(event.quantity)

    bus.subscribe(OrderPlaced, note, name="note")
    for number in range(50):
        for key in ("o-1", "o-2", "o-3"):
            await bus.publish(OrderPlaced(key, number))
    await bus.drain()
    assert handled == {key: list(range(50)) for key in ("o-1", "o-2", "o-3")}


async def test_a_full_queue_makes_the_publisher_wait() -> None:
    bus = PooledBus(workers=1, max_queue=1)
    publishing = asyncio.create_task(_publish(bus, 3))
    await asyncio.sleep(0)
    assert not publishing.done(), "no worker is running, so there is room for one"
    await bus.start()
    await publishing
    await bus.stop()


async def _publish(bus: PooledBus, count: int) -> None:
    for number in range(count):
        await bus.publish(OrderPlaced("o-1", number))


async def test_a_killed_bus_loses_its_undelivered_events() -> None:
    """The reason for step 3: the queues are in memory. A new bus does not know the old one's events."""
    bus = PooledBus()
    await bus.publish(OrderPlaced("o-1", 5))  # never started: as if the process had been killed here
    after_the_kill = PooledBus()
    seen: list[Event] = []

    async def note(event: Event) -> None:
        seen.append(event)

    after_the_kill.subscribe(OrderPlaced, note, name="note")
    await after_the_kill.start()
    await after_the_kill.stop()
    assert seen == []
