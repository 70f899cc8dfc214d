"""``bus.subscriptions.reset``: a subscription is moved back to the beginning, or on to now."""

from __future__ import annotations

import pytest

from pabal import InMemoryEventBus, NotRetryableError
from pabal.errors import InsideHandlerError, SubscriptionInUseError
from tests.bus.samples import Moved
from tests.bus.support import Backend, GatedHandler, Recorder, by_piece, numbers, publish_moves


async def test_a_reset_to_the_beginning_redelivers_everything_to_that_subscription_only(
    stored: Backend,
) -> None:
    """Promise 32. A read model is rebuilt from the beginning without any effect on the others."""
    bus = await stored.start_bus()
    rebuilt, other = GatedHandler(), GatedHandler()
    rebuilt.poison = {3}
    bus.subscribe(Moved, rebuilt, name="rebuilt", on_exhausted="park_key")
    bus.subscribe(Moved, other, name="other")
    await publish_moves(bus, range(10))
    await bus.drain(60)
    assert len(await bus.dead_letters.list()) == 1
    rebuilt.poison.clear()
    rebuilt.handled = Recorder()
    assert await bus.subscriptions.reset("rebuilt", "beginning") == 0
    await publish_moves(bus, range(10, 14))
    await bus.drain(60)
    assert by_piece(rebuilt.handled) == {"A": list(range(0, 14, 2)), "B": list(range(1, 14, 2))}
    assert sorted(numbers(other.handled)) == list(range(14))
    assert await bus.dead_letters.list() == []
    assert bus.health().status == "ok"


async def test_a_reset_to_now_skips_earlier_events(stored: Backend) -> None:
    """A backlog that was skipped on purpose would be delivered after all."""
    bus = await stored.start_bus()
    handler = GatedHandler()
    bus.subscribe(Moved, handler, name="late")
    await bus.subscriptions.pause("late")
    await publish_moves(bus, range(10))
    assert await bus.subscriptions.reset("late", "now") == 10
    await bus.subscriptions.resume("late")
    await publish_moves(bus, range(10, 12))
    await bus.drain(60)
    assert sorted(numbers(handler.handled)) == [10, 11]


async def test_a_reset_inside_a_handler_of_its_subscription_raises(stored: Backend) -> None:
    """A handler that resets its own subscription would wait for itself for ever."""
    bus = await stored.start_bus()
    errors: Recorder[Exception] = Recorder()

    async def handle(event: Moved) -> None:
        try:
            await bus.subscriptions.reset("own", "beginning")
        except InsideHandlerError as error:
            errors.add(error)

    bus.subscribe(Moved, handle, name="own")
    await bus.publish(Moved("A", 1))
    await bus.drain(60)
    assert len(errors) == 1


async def test_a_subscription_held_by_another_bus_cannot_be_reset(stored: Backend) -> None:
    """The other bus would continue to save its own progress over the new position."""
    bus = await stored.start_bus()
    other = InMemoryEventBus(bus.storage)
    bus.subscribe(Moved, GatedHandler(), name="held")
    other.subscribe(Moved, GatedHandler(), name="held")
    await bus.drain(60)
    await other.start()
    with pytest.raises(SubscriptionInUseError, match="held"):
        await other.subscriptions.reset("held", "beginning")
    await other.stop()


async def test_dead_letters_dropped_by_the_reset_of_an_unused_name_are_no_longer_counted(
    stored: Backend,
) -> None:
    """Health would ask for a look at dead letters that do not exist."""
    bus = await stored.start_bus()

    async def fail(event: Moved) -> None:
        raise NotRetryableError("no")

    former = bus.subscribe(Moved, fail, name="former")
    await publish_moves(bus, range(3))
    await bus.drain(60)
    bus.unsubscribe(former)
    await bus.drain(60)
    await bus.subscriptions.reset("former", "beginning")
    await bus.drain(60)
    assert await bus.dead_letters.list() == []
    assert bus.get_statistics()["failed_events_count"] == 0


@pytest.mark.parametrize("ending", ["unsubscribe", "stop"])
async def test_a_reset_holds_if_its_subscription_ends_before_it_is_opened_again(
    stored: Backend, ending: str
) -> None:
    """Promise 32. Its last save would put the cursor back, and what was a dead letter would be lost."""
    bus = await stored.start_bus()
    handler = GatedHandler()
    handler.poison = {0}
    subscription = bus.subscribe(Moved, handler, name="sub", on_exhausted="park_key")
    await publish_moves(bus, range(4))
    await bus.drain(60)
    handler.poison.clear()
    handler.handled = Recorder()
    await bus.subscriptions.reset("sub", "beginning")
    if ending == "unsubscribe":
        bus.unsubscribe(subscription)
        bus.subscribe(Moved, handler, name="sub", on_exhausted="park_key")
    else:
        await bus.stop()
        await bus.start()
    await bus.drain(60)
    assert by_piece(handler.handled) == {"A": [0, 2], "B": [1, 3]}
    assert await bus.dead_letters.list() == []
    assert [record.watermark for record in await bus.subscriptions.list()] == [4]
