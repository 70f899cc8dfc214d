"""Forgetting a subscription while its bus reopens it is rejected, on every log."""

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
