"""A subscription that is forgotten while a bus subscribes to it: its unfinished work is not lost silently."""

from __future__ import annotations

import pytest
from tests.bus.support import figures, numbers, reports_of
from tests.delivery.desk import Desk

from pabal.errors import SubscriptionInUseError
from pabal.ports.storage import Cursor
from pabal.ports.telemetry import SubscriptionHalted, SubscriptionResumed


async def lose(desk: Desk) -> None:
    """Take the subscription away from its bus, as when its lease expires while the process is suspended."""
    consumer = desk.bus._engine.consumers["clerk"]
    await desk.storage.release_subscription("clerk", consumer.epoch)
    desk.bus._engine.on_lease_lost(consumer)  # as the next renewal does


async def taken(desk: Desk) -> Cursor:
    """Open the subscription as another process would."""
    cursor = await desk.storage.open_subscription("clerk", "now")
    assert cursor is not None
    return cursor


async def forgotten_and_found(desk: Desk) -> None:
    """Forget the subscription, and let its bus try to open it again."""
    assert await desk.storage.forget_subscription("clerk")
    await desk.clock.advance(0.5)
    await desk.clock.settle()


async def test_one_that_was_lost_and_forgotten_halts_in_place_of_beginning_at_the_end(desk: Desk) -> None:
    """All its unfinished work would be lost, while health says that all is well."""
    halted = reports_of(desk.bus, SubscriptionHalted)
    resumed = reports_of(desk.bus, SubscriptionResumed)
    desk.employ()
    await desk.publish(1)
    await desk.rest()
    await lose(desk)
    await desk.publish(2, 3)
    await forgotten_and_found(desk)
    assert figures(desk.bus, "clerk")["state"] == "halted"
    health = desk.bus.health()
    assert health.status == "failing"
    assert "it was forgotten while in use" in health.reasons[0]
    assert (len(halted), len(resumed)) == (1, 0)
    [record] = await desk.bus.subscriptions.list()
    assert "it was forgotten while in use" in record.halted, "for all to see"


@pytest.mark.parametrize(("reset", "then"), [(True, [2, 3, 4]), (False, [3, 4])])
async def test_who_forgot_it_says_where_it_goes_on(desk: Desk, reset: bool, then: list[int]) -> None:
    """If it stayed halted, or halted again each time, only another name would help."""
    desk.employ()
    await desk.publish(1)
    await desk.rest()
    await lose(desk)
    await desk.publish(2)
    await forgotten_and_found(desk)
    await desk.publish(3)
    if reset:
        await desk.bus.subscriptions.reset("clerk", 1)
    else:
        assert await desk.bus.subscriptions.resume("clerk")
    await desk.publish(4)
    await desk.rest()
    assert numbers(desk.clerk.handled) == [1, *then]
    assert desk.bus.health().status == "ok"


async def test_one_that_stands_by_for_another_process_halts_where_it_was_forgotten_before_its_turn(
    desk: Desk,
) -> None:
    """It would begin at the end of the log, and the other process's unfinished work would be lost."""
    other = await taken(desk)
    desk.employ()
    await desk.clock.settle()
    assert figures(desk.bus, "clerk")["state"] == "standby"
    await desk.publish(1)
    await desk.storage.release_subscription("clerk", other.epoch)
    await forgotten_and_found(desk)
    assert figures(desk.bus, "clerk")["state"] == "halted"


async def test_one_that_is_forgotten_while_the_bus_is_stopped_begins_anew(desk: Desk) -> None:
    """Forgetting a subscription that nothing handles is the way to start it from scratch."""
    desk.employ()
    await desk.publish(1)
    await desk.rest()
    await desk.bus.stop()
    assert await desk.storage.forget_subscription("clerk")
    await desk.bus.start()
    await desk.publish(2)
    await desk.rest()
    assert numbers(desk.clerk.handled) == [1, 2]
    assert figures(desk.bus, "clerk")["state"] == "active"


@pytest.mark.parametrize("moment", ["read_controls", "open_subscription", "release_subscription"])
@pytest.mark.parametrize("call", ["resume", "reset", "replay"])
async def test_nobody_can_forget_a_subscription_that_is_taken_up_anew(
    desk: Desk, moment: str, call: str
) -> None:
    """It was released and opened again: if it was forgotten in between, it began at the end of the log."""
    desk.employ()
    await desk.publish(1)
    await desk.rest()
    tried: list[str] = []

    async def forget() -> None:
        with pytest.raises(SubscriptionInUseError):
            await desk.storage.forget_subscription("clerk")
        tried.append(moment)

    await desk.pause()
    await desk.publish(2, 3)
    desk.storage.then[moment] = forget
    subscriptions = desk.bus.subscriptions
    if call == "reset":
        await subscriptions.reset("clerk", 1)
    elif call == "replay":
        await subscriptions.replay("clerk")
    await desk.resume()
    await desk.rest()
    assert set(numbers(desk.clerk.handled)) == {1, 2, 3}
    desk.storage.then.clear()
    assert tried == ([] if moment == "release_subscription" else [moment])
    assert desk.bus.health().status == "ok"
