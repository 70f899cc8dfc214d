"""Forgetting a subscription while its bus reopens it is refused, on every log."""

from __future__ import annotations

from typing import Any

import pytest

from pabal import InMemoryEventStorage, SqliteEventStorage
from pabal.brokers.redis.partition import PartitionStorage
from pabal.errors import SubscriptionInUseError
from tests.bus.samples import Moved
from tests.bus.support import Backend, Recorder, numbers

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
    """It was released and opened again: if it was forgotten in between, it began at the end of the log."""
    bus = await backend.start_bus()
    handled: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        handled.add(event)

    bus.subscribe(Moved, handle, name="sub")
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    await bus.subscriptions.pause("sub")
    await bus.publish(Moved("rook", 2))
    refused: list[str] = []

    def with_forgetting(name: str) -> None:
        step = getattr(STORAGES[backend.kind], name)

        async def take_step(storage: Any, *arguments: Any, **named: Any) -> Any:
            answer = await step(storage, *arguments, **named)
            if bus.is_running:
                with pytest.raises(SubscriptionInUseError):
                    await bus.subscriptions.forget("sub")
                refused.append(name)
            return answer

        monkeypatch.setattr(STORAGES[backend.kind], name, take_step)

    for moment in MOMENTS:
        with_forgetting(moment)
    if call == "reset":
        await bus.subscriptions.reset("sub", "beginning")
    elif call == "replay":
        await bus.subscriptions.replay("sub")
    await bus.subscriptions.resume("sub")
    await bus.drain(60)
    assert set(numbers(handled)) == {1, 2}
    assert "open_subscription" in refused
    assert bus.health().status == "ok"
    monkeypatch.undo()
