"""The tests of step 1. Two show what it does, two what it cannot do yet."""

import pytest

from examples.small_bus.step1_interface import DirectBus, Event, OrderPlaced


async def test_every_handler_of_a_type_receives_the_event() -> None:
    bus = DirectBus()
    seen: list[tuple[str, Event]] = []

    async def first(event: Event) -> None:
        seen.append(("first", event))

    async def second(event: Event) -> None:
        seen.append(("second", event))

    bus.subscribe(OrderPlaced, first, name="first")
    bus.subscribe(OrderPlaced, second, name="second")
    order = OrderPlaced("o-1", 5)
    await bus.publish(order)
    assert seen == [("first", order), ("second", order)]


async def test_publishing_an_event_without_a_handler_does_not_raise() -> None:
    bus = DirectBus()
    await bus.publish(OrderPlaced("o-1", 5))


async def test_a_failing_handler_fails_the_publisher_and_skips_later_handlers() -> None:
    """The first reason for step 2: the publisher gets an exception that does not concern it."""
    bus = DirectBus()
    seen: list[Event] = []

    async def broken(event: Event) -> None:
        raise ConnectionError("the ledger is down")

    async def fine(event: Event) -> None:
        seen.append(event)

    bus.subscribe(OrderPlaced, broken, name="broken")
    bus.subscribe(OrderPlaced, fine, name="fine")
    with pytest.raises(ConnectionError):
        await bus.publish(OrderPlaced("o-1", 5))
    assert seen == []


async def test_a_slow_handler_delays_the_publisher() -> None:
    """The second reason: publishing takes as long as all handlers together."""
    bus = DirectBus()
    steps: list[str] = []

    async def slow(event: Event) -> None:
        steps.append("handled")

    bus.subscribe(OrderPlaced, slow, name="slow")
    await bus.publish(OrderPlaced("o-1", 5))
    steps.append("published")
    assert steps == ["handled", "published"]
