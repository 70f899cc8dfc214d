"""``subscribe``: which events a subscription gets, under which name, and how it ends."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import pytest

from pabal import BaseEventBus, DomainEvent, PatternMatchesNothingWarning
from pabal.domain.registry import registry
from pabal.errors import DuplicateSubscriptionError, UsageError
from tests.bus.samples import Jumped, Measured, Moved, NoteTaken, Ticket
from tests.bus.support import ONE_ATTEMPT, Backend, Recorder, numbers, statistics_of, watermark


async def publish_some(bus: BaseEventBus) -> None:
    await bus.publish(Moved("rook", 1))
    await bus.publish(Jumped("knight", 2))
    await bus.publish(NoteTaken(3))
    await bus.publish(Ticket("A1"))
    await bus.drain(60)


def types_of(seen: Recorder[Any]) -> list[str]:
    return sorted(type(event).__name__ for event in seen)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (Moved, ["Jumped", "Moved"]),
        (Jumped, ["Jumped"]),
        ((Jumped, NoteTaken), ["Jumped", "NoteTaken"]),
        ((Moved, Jumped), ["Jumped", "Moved"]),
        (DomainEvent, ["Jumped", "Moved", "NoteTaken"]),
        (Ticket, ["Ticket"]),
        ((Ticket, NoteTaken), ["NoteTaken", "Ticket"]),
        ("piece.*", ["Jumped", "Moved"]),
        ("*.taken", ["NoteTaken"]),
        ("piece.?umped", ["Jumped"]),
        ("[nt]*", ["NoteTaken", "Ticket"]),
        ("*", ["Jumped", "Moved", "NoteTaken", "Ticket"]),
    ],
)
async def test_a_class_a_tuple_or_a_pattern_selects_exactly_its_events(
    backend: Backend, selector: Any, expected: list[str]
) -> None:
    """A wrong selector would lose events of a subclass, deliver other events, or deliver one twice."""
    bus = await backend.start_bus()
    seen: Recorder[Any] = Recorder()

    async def note(event: Any) -> None:
        seen.add(event)

    bus.subscribe(selector, note)
    await publish_some(bus)
    assert types_of(seen) == expected


async def test_a_pattern_matches_event_classes_defined_later(backend: Backend) -> None:
    """A pattern that only knows types registered before it would miss later ones."""
    bus = await backend.start_bus()
    seen: Recorder[Any] = Recorder()

    async def note(event: Any) -> None:
        seen.add(event)

    with pytest.warns(PatternMatchesNothingWarning, match=r"late\.\*"):
        bus.subscribe("late.*", note)

    with registry.isolated():

        class Latecomer(DomainEvent):
            event_type: ClassVar[str] = "late.comer"
            n: int = 0

        await bus.publish(Latecomer(1))
        await bus.drain(60)
    assert numbers(seen) == [1]


async def test_a_pattern_that_matches_no_known_type_warns_and_one_that_does_is_silent(
    memory: Backend,
) -> None:
    """A mistyped pattern without a warning looks like a bus that delivers nothing."""
    bus = memory.make_bus()

    async def note(event: Any) -> None: ...

    with pytest.warns(PatternMatchesNothingWarning, match=r"'pice\.\*' matches no event type"):
        bus.subscribe("pice.*", note, name="mistyped")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bus.subscribe("piece.*", note, name="right")


async def test_where_selects_the_events_to_handle_and_the_rest_count_as_finished(backend: Backend) -> None:
    """An event that a filter rejects must neither reach the handler nor hold back the watermark."""
    bus = await backend.start_bus()
    seen: Recorder[Moved] = Recorder()

    async def note(event: Moved) -> None:
        seen.add(event)

    bus.subscribe(Moved, note, name="even", where=lambda event: event.n % 2 == 0)
    await bus.publish_batch([Moved("rook", n) for n in range(6)])
    await bus.drain(60)
    assert numbers(seen) == [0, 2, 4]
    assert (statistics_of(bus, "even")["handled"], statistics_of(bus, "even")["filtered"]) == (3, 3)
    assert watermark(bus, "even") == (6 if backend.stored else None)


async def test_a_where_that_raises_parks_the_event_instead_of_losing_it(backend: Backend) -> None:
    """A bug in a filter is no reason to treat the event as handled."""
    bus = await backend.start_bus()

    async def note(event: NoteTaken) -> None: ...

    where: Any = lambda event: event.missing  # noqa: E731
    bus.subscribe(NoteTaken, note, where=where, retry=ONE_ATTEMPT)
    await bus.publish(NoteTaken(1))
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    assert letter.attempts[0].error_type == "AttributeError"


async def test_on_returns_the_decorated_function(memory: Backend) -> None:
    """A decorator that does not return the function breaks direct calls in the user's tests."""
    bus = memory.make_bus()

    @bus.on(Moved, name="first")
    @bus.on(NoteTaken, name="second")
    async def note(event: Any) -> str:
        return "called"

    assert await note(NoteTaken()) == "called"
    assert bus.get_statistics()["subscription_count"] == 2


async def test_the_default_name_is_the_module_and_qualified_name(memory: Backend) -> None:
    """The durable name must be the same in every run of the program."""
    bus = memory.make_bus()
    subscription = bus.subscribe(Moved, publish_some)  # type: ignore[arg-type]
    assert subscription.name == f"{__name__}:publish_some"


async def test_subscribe_rejects_a_name_that_is_already_in_use(backend: Backend) -> None:
    """Two subscriptions with one cursor would each skip the events the other handled."""
    bus = await backend.start_bus()

    async def note(event: Any) -> None: ...

    bus.subscribe(Moved, note, name="book")
    with pytest.raises(DuplicateSubscriptionError, match=r"'book' already exists .* pass name="):
        bus.subscribe(NoteTaken, note, name="book")
    assert bus.get_statistics()["subscription_count"] == 1


async def test_one_function_may_be_subscribed_under_two_names(backend: Backend) -> None:
    """The name is the identity, not the function: one of the two would get no events."""
    bus = await backend.start_bus()
    seen: Recorder[Moved] = Recorder()

    async def note(event: Moved) -> None:
        seen.add(event)

    bus.subscribe(Moved, note, name="one")
    bus.subscribe(Moved, note, name="two")
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    assert numbers(seen) == [1, 1]


async def test_unsubscribe_accepts_a_subscription_or_id_and_returns_whether_it_existed(
    backend: Backend,
) -> None:
    """After unsubscribing nothing more is delivered; unsubscribing twice is harmless."""
    bus = await backend.start_bus()
    seen: Recorder[Moved] = Recorder()

    async def note(event: Moved) -> None:
        seen.add(event)

    one = bus.subscribe(Moved, note, name="one")
    two = bus.subscribe(Moved, note, name="two")
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    assert bus.unsubscribe(one)
    assert bus.unsubscribe(two.id)
    assert not bus.unsubscribe(one)
    assert not bus.unsubscribe("sub-unknown")
    await bus.publish(Moved("rook", 2))
    await bus.drain(60)
    assert numbers(seen) == [1, 1]
    assert bus.get_statistics()["subscription_count"] == 0


async def test_unsubscribe_rejects_a_name_or_a_handler(backend: Backend) -> None:
    """Given a name, it would return "it did not exist", and the handler would still be called."""
    bus = await backend.start_bus()

    @bus.on(Moved, name="dead")
    async def note(event: Moved) -> None: ...

    with pytest.raises(UsageError, match=r"'dead' is the name of a subscription; pass .*attached\(\)"):
        bus.unsubscribe("dead")
    mistakes: list[Any] = [note, None, 1]
    for mistake in mistakes:
        with pytest.raises(UsageError, match=r"is not a subscription; pass the one that subscribe"):
            bus.unsubscribe(mistake)
    assert bus.get_statistics()["subscription_count"] == 1


async def test_subscribing_again_under_a_name_continues_where_it_stopped(stored: Backend) -> None:
    """A name that stays taken after ``unsubscribe`` would never receive anything again."""
    bus = await stored.start_bus()
    seen: Recorder[Moved] = Recorder()

    async def note(event: Moved) -> None:
        seen.add(event)

    subscription = bus.subscribe(Moved, note, name="book")
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    bus.unsubscribe(subscription)
    await bus.publish(Moved("rook", 2))
    bus.subscribe(Moved, note, name="book")
    await bus.publish(Moved("rook", 3))
    await bus.drain(60)
    assert numbers(seen) == [1, 2, 3]


async def test_subscriptions_made_before_the_start_receive_events(backend: Backend) -> None:
    """Programs subscribe during setup, long before the bus runs: their handlers would never be called."""
    bus = backend.make_bus()
    seen: Recorder[Moved] = Recorder()

    @bus.on(Moved)
    async def note(event: Moved) -> None:
        seen.add(event)

    async with bus:
        await bus.publish(Moved("rook", 1))
    assert numbers(seen) == [1]


async def test_where_filters_events_with_a_float_field(backend: Backend) -> None:
    """Events that are checked when published take another path through the bus; filters must hold there."""
    bus = await backend.start_bus()
    seen: Recorder[Measured] = Recorder()

    async def note(event: Measured) -> None:
        seen.add(event)

    bus.subscribe(Measured, note, where=lambda event: event.value > 1.0)
    await bus.publish(Measured(0.5))
    await bus.publish(Measured(1.5))
    await bus.drain(60)
    assert [event.value for event in seen] == [1.5]
