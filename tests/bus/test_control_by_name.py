"""Subscriptions are controlled by their durable name, whether or not anything here has it subscribed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from pabal.errors import SubscriptionNotFoundError, UsageError
from pabal.operations import operations_of
from tests.bus.samples import Moved
from tests.bus.support import Backend, Recorder, numbers


async def test_an_unknown_subscription_name_raises_and_lists_the_known_ones(backend: Backend) -> None:
    """After a typing error, "False" would suggest that the subscription runs."""
    bus = await backend.start_bus()

    async def handle(event: Moved) -> None: ...

    bus.subscribe(Moved, handle, name="clerk")
    await bus.drain(60)
    with pytest.raises(SubscriptionNotFoundError, match="clerk"):
        await bus.resume("clark")
    assert not await bus.resume("clerk")


async def test_a_subscription_without_a_handler_here_can_be_reset(stored: Backend) -> None:
    """A new version of a program could not move a cursor back before it subscribes."""
    seen: Recorder[Any] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event)

    bus = await stored.start_bus()
    subscription = bus.subscribe(Moved, handle, name="clerk")
    await bus.publish_batch([Moved("rook", n) for n in range(1, 6)])
    await bus.drain(60)
    bus.unsubscribe(subscription)
    await bus._engine.background.wait_until(lambda: not bus._engine.background.tasks)
    assert await bus.subscriptions.reset("clerk", 3) == 3
    bus.subscribe(Moved, handle, name="clerk")
    await bus.drain(60)
    assert numbers(seen) == [1, 2, 3, 4, 5, 4, 5]


@pytest.mark.parametrize("to", ["beginnig", -1, True, 2.5, None, datetime(2026, 1, 1)])
async def test_reset_rejects_an_invalid_position_and_moves_nothing(stored: Backend, to: Any) -> None:
    """A TypeError from inside would surface, or a typing error would deliver everything again."""
    bus = await stored.start_bus()
    seen: Recorder[Any] = Recorder()
    bus.subscribe(Moved, seen.add, name="clerk")
    await bus.publish_batch([Moved("rook", n) for n in range(1, 4)])
    await bus.drain(60)
    with pytest.raises(UsageError, match="aware"):
        await bus.subscriptions.reset("clerk", to)
    operations = operations_of(bus)
    with pytest.raises(UsageError, match="aware"):
        await operations.reset("clerk", to)
    assert await operations.audit() == []
    await bus.drain(60)
    assert len(seen) == 3


async def test_replay_rejects_a_naive_time(stored: Backend) -> None:
    """A naive time would mean a different moment on each machine."""
    bus = await stored.start_bus()
    bus.subscribe(Moved, lambda event: None, name="clerk")
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    with pytest.raises(UsageError, match="aware"):
        await operations_of(bus).replay("clerk", datetime(2026, 1, 1))
    with pytest.raises(UsageError, match="aware"):
        await operations_of(bus).published_since(datetime(2026, 1, 1))
