"""Forgetting a subscription while its bus reopens it is rejected, on every log."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from pabal import BaseEventBus, InMemoryEventStorage, SqliteEventStorage
from pabal.brokers.redis.partition import PartitionStorage
from pabal.errors import SubscriptionInUseError
from tests.brokers.events import until
from tests.bus.failing_handler import FailingHandler
from tests.bus.samples import Moved
from tests.bus.support import ONE_ATTEMPT, Backend, Recorder, numbers

STORAGES: dict[str, Any] = {
    "memory storage": InMemoryEventStorage,
    "sqlite": SqliteEventStorage,
    "valkey": PartitionStorage,
}
MOMENTS = (
    "read_controls",
    "list_subscriptions",
    "release_subscription",
    "open_subscription",
    "save_progress",
)


@pytest.mark.parametrize("backend", list(STORAGES), indirect=True)
@pytest.mark.parametrize("call", ["resume", "reset", "replay"])
async def test_a_subscription_cannot_be_forgotten_while_its_bus_reopens_it(
    backend: Backend, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Released and opened again, it would start at the end of the log if it was forgotten in between."""
    bus = await backend.start_bus()
    handled: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        handled.add(event)

    bus.subscribe(Moved, handle, name="sub")
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    await bus.subscriptions.pause("sub")
    await bus.publish(Moved("rook", 2))
    rejected_after: list[str] = []

    def forget_after(name: str) -> None:
        step = getattr(STORAGES[backend.kind], name)

        async def step_and_forget(storage: Any, *arguments: Any, **named: Any) -> Any:
            result = await step(storage, *arguments, **named)
            if bus.is_running:
                with pytest.raises(SubscriptionInUseError):
                    await bus.subscriptions.forget("sub")
                rejected_after.append(name)
            return result

        monkeypatch.setattr(STORAGES[backend.kind], name, step_and_forget)

    for moment in MOMENTS:
        forget_after(moment)
    if call == "reset":
        await bus.subscriptions.reset("sub", "beginning")
    elif call == "replay":
        await bus.subscriptions.replay("sub")
    await bus.subscriptions.resume("sub")
    await bus.drain(60)
    assert set(numbers(handled)) == {1, 2}
    assert "open_subscription" in rejected_after
    assert bus.health().status == "ok"
    monkeypatch.undo()


async def forget_released(bus: BaseEventBus) -> None:
    """Forget "sub" as soon as it is released after it has ended."""
    while True:
        with suppress(SubscriptionInUseError):
            assert await bus.subscriptions.forget("sub")
            return
        await asyncio.sleep(0)


@pytest.mark.parametrize("backend", ["memory storage", "sqlite", "valkey"], indirect=True)
async def test_a_dead_letter_is_gone_once_its_event_was_delivered_to_the_same_name_again(
    backend: Backend,
) -> None:
    """An event that was handled would still be listed as one that failed, and could be retried."""
    bus, handler = await backend.start_bus(), FailingHandler()
    first = bus.subscribe(Moved, handler, name="sub", retry=ONE_ATTEMPT)
    await bus.publish_batch([Moved("rook", 1), Moved("rook", 2)])
    await bus.drain(60)
    bus.unsubscribe(first)
    await forget_released(bus)
    assert len(await bus.dead_letters.list()) == 2
    handler.accepts = True
    bus.subscribe(Moved, handler, name="sub", start=1, retry=ONE_ATTEMPT)
    await bus.drain(60)
    assert handler.calls == 3
    [letter] = await bus.dead_letters.list()
    assert letter.position == 1  # its event is not delivered again


@pytest.mark.parametrize("backend", ["memory storage", "sqlite", "valkey"], indirect=True)
async def test_dead_letters_of_forgotten_names_are_counted_until_they_are_gone(backend: Backend) -> None:
    """Metrics and health would show none, while they are listed and count towards the limit of the log."""

    def count() -> int:
        return int(bus.get_statistics()["failed_events_count"])

    bus, handler = await backend.start_bus(), FailingHandler()
    first = bus.subscribe(Moved, handler, name="sub", retry=ONE_ATTEMPT)
    await bus.publish_batch([Moved("rook", n) for n in range(3)])
    await bus.drain(60)
    bus.unsubscribe(first)
    await forget_released(bus)
    handler.accepts = True
    bus = await backend.reopen(bus)
    bus.subscribe(Moved, handler, name="other")
    await bus.start()
    letter, *others = await bus.dead_letters.list()
    assert count() == len(others) + 1 == 3
    assert bus.health().status == "degraded"
    await bus.dead_letters.discard(letter.id)
    assert count() == 2
    bus = await backend.reopen(bus)
    bus.subscribe(Moved, handler, name="sub", start="beginning")
    await bus.start()
    await until(lambda: count() == 0)
    assert bus.health().status == "ok"


@pytest.mark.parametrize("backend", ["memory storage", "sqlite"], indirect=True)
async def test_a_dead_letter_that_a_forgotten_name_gets_again_counts_once(backend: Backend) -> None:
    """Once it was retried or discarded, health would still be degraded, and say that there is one."""
    bus, handler = await backend.start_bus(), FailingHandler()
    first = bus.subscribe(Moved, handler, name="sub", retry=ONE_ATTEMPT)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    bus.unsubscribe(first)
    await forget_released(bus)
    bus.subscribe(Moved, handler, name="sub", start="beginning", retry=ONE_ATTEMPT)
    await bus.drain(60)
    assert handler.calls == 2
    [letter] = await bus.dead_letters.list()
    assert bus.get_statistics()["failed_events_count"] == 1
    handler.accepts = True
    assert await bus.dead_letters.retry(letter.id) == 1
    await bus.drain(60)
    assert bus.health().status == "ok"
