"""A subscription that is forgotten while a bus subscribes to it: its unfinished work is not lost silently."""

from __future__ import annotations

import pytest
from tests.bus.support import numbers, reports_of, statistics_of
from tests.delivery.harness import Harness

from pabal.errors import SubscriptionInUseError
from pabal.ports.storage import Cursor
from pabal.ports.telemetry import SubscriptionHalted, SubscriptionResumed


async def lose_lease(harness: Harness) -> None:
    """Take the lease from the bus, as when it expires while the process is suspended."""
    consumer = harness.bus._engine.consumers["sub"]
    await harness.storage.release_subscription("sub", consumer.epoch)
    harness.bus._engine.on_lease_lost(consumer)  # as the next renewal does


async def open_elsewhere(harness: Harness) -> Cursor:
    """Open the subscription as another process would."""
    cursor = await harness.storage.open_subscription("sub", "now")
    assert cursor is not None
    return cursor


async def forget_and_reopen(harness: Harness) -> None:
    """Forget the subscription, and let its bus try to open it again."""
    assert await harness.storage.forget_subscription("sub")
    await harness.clock.advance(0.5)
    await harness.clock.settle()


async def test_a_lost_and_forgotten_subscription_halts_instead_of_starting_at_the_end(
    harness: Harness,
) -> None:
    """All its unfinished work would be lost, while health says ok."""
    halted = reports_of(harness.bus, SubscriptionHalted)
    resumed = reports_of(harness.bus, SubscriptionResumed)
    harness.subscribe()
    await harness.publish(1)
    await harness.drain()
    await lose_lease(harness)
    await harness.publish(2, 3)
    await forget_and_reopen(harness)
    assert statistics_of(harness.bus, "sub")["state"] == "halted"
    health = harness.bus.health()
    assert health.status == "failing"
    assert "it was forgotten while in use" in health.reasons[0]
    assert (len(halted), len(resumed)) == (1, 0)
    [record] = await harness.bus.subscriptions.list()
    assert "it was forgotten while in use" in record.halted, "visible to other processes"


@pytest.mark.parametrize(("reset", "redelivered"), [(True, [2, 3, 4]), (False, [3, 4])])
async def test_reset_or_resume_restarts_a_forgotten_subscription(
    harness: Harness, reset: bool, redelivered: list[int]
) -> None:
    """It would stay halted, or halt again each time: only another name would help."""
    harness.subscribe()
    await harness.publish(1)
    await harness.drain()
    await lose_lease(harness)
    await harness.publish(2)
    await forget_and_reopen(harness)
    await harness.publish(3)
    if reset:
        await harness.bus.subscriptions.reset("sub", 1)
    else:
        assert await harness.bus.subscriptions.resume("sub")
    await harness.publish(4)
    await harness.drain()
    assert numbers(harness.handler.handled) == [1, *redelivered]
    assert harness.bus.health().status == "ok"


async def test_a_standby_subscription_halts_when_it_was_forgotten_before_its_turn(
    harness: Harness,
) -> None:
    """It would start at the end of the log, and the other process's unfinished work would be lost."""
    other = await open_elsewhere(harness)
    harness.subscribe()
    await harness.clock.settle()
    assert statistics_of(harness.bus, "sub")["state"] == "standby"
    await harness.publish(1)
    await harness.storage.release_subscription("sub", other.epoch)
    await forget_and_reopen(harness)
    assert statistics_of(harness.bus, "sub")["state"] == "halted"


async def test_a_subscription_forgotten_while_the_bus_is_stopped_starts_anew(harness: Harness) -> None:
    """Forgetting a subscription that nothing handles is the way to start it from scratch."""
    harness.subscribe()
    await harness.publish(1)
    await harness.drain()
    await harness.bus.stop()
    assert await harness.storage.forget_subscription("sub")
    await harness.bus.start()
    await harness.publish(2)
    await harness.drain()
    assert numbers(harness.handler.handled) == [1, 2]
    assert statistics_of(harness.bus, "sub")["state"] == "active"


@pytest.mark.parametrize("moment", ["read_controls", "open_subscription", "release_subscription"])
@pytest.mark.parametrize("call", ["resume", "reset", "replay"])
async def test_a_subscription_cannot_be_forgotten_while_it_is_reopened(
    harness: Harness, moment: str, call: str
) -> None:
    """Released and opened again, it would start at the end of the log if it was forgotten in between."""
    harness.subscribe()
    await harness.publish(1)
    await harness.drain()
    attempted: list[str] = []

    async def forget() -> None:
        with pytest.raises(SubscriptionInUseError):
            await harness.storage.forget_subscription("sub")
        attempted.append(moment)

    await harness.pause()
    await harness.publish(2, 3)
    harness.storage.after_call[moment] = forget
    subscriptions = harness.bus.subscriptions
    if call == "reset":
        await subscriptions.reset("sub", 1)
    elif call == "replay":
        await subscriptions.replay("sub")
    await harness.resume()
    await harness.drain()
    assert set(numbers(harness.handler.handled)) == {1, 2, 3}
    harness.storage.after_call.clear()
    assert attempted == ([] if moment == "release_subscription" else [moment])
    assert harness.bus.health().status == "ok"
