"""Dead letters outlive the run, the subscription and the retry that they belong to."""

from __future__ import annotations

import asyncio

from tests.bus.samples import Moved, Noted, Packed, Ticket
from tests.bus.support import ONCE, Backend, Seen, figures
from tests.bus.test_dead_letters import Clinic, sick_bus


async def test_dead_letters_and_their_retries_survive_a_restart(stored: Backend) -> None:
    """What was given up yesterday can be mended today; a retry under way at the stop goes on after it."""
    bus, clinic = await sick_bus(stored)
    await bus.publish_batch([Moved("rook", 1), Noted(2)])
    await bus.drain(60)
    one, two = await bus.dead_letters.list()
    clinic.gate = asyncio.Event()
    await bus.dead_letters.retry(two.id)
    await bus.stop(timeout=0.05)
    bus = await stored.again(bus)
    mended = Clinic()
    mended.accepts = True
    bus.subscribe((Moved, Noted), mended, name="clinic")
    await bus.start()
    await bus.drain(60)
    assert [type(event).__name__ for event in mended.handled] == [two.event.__class__.__name__]
    [left] = await bus.dead_letters.list()
    assert (left.id, left.event, len(left.attempts)) == (one.id, one.event, 2)
    assert bus.get_statistics()["failed_events_count"] == 1
    await bus.dead_letters.retry("all")
    await bus.drain(60)
    assert len(mended.handled) == 2
    assert figures(bus, "clinic")["watermark"] == 2


async def test_events_with_changeable_fields_and_dataclasses_can_be_dead_letters(backend: Backend) -> None:
    """They take another way through the bus, which must keep their content just as well."""
    bus = await backend.running()
    clinic = Clinic()
    bus.subscribe((Packed, Ticket), clinic, name="clinic", retry=ONCE)
    packed, ticket = Packed(["apple"], {}), Ticket("A1", ["coat"])
    await bus.publish_batch([packed, ticket])
    await bus.drain(60)
    letters = {letter.event_type: letter for letter in await bus.dead_letters.list()}
    assert letters["basket.packed"].event == packed
    assert letters["ticket.sold"].event == ticket
    assert letters["ticket.sold"].payload == {"seat": "A1", "extras": ["coat"]}
    clinic.accepts = True
    edited = {"seat": "A2", "extras": ["hat"]}
    assert await bus.dead_letters.edit_and_retry(letters["ticket.sold"].id, edited)
    assert await bus.dead_letters.retry(letters["basket.packed"].id)
    await bus.drain(60)
    assert packed in list(clinic.handled)
    assert Ticket("A2", ["hat"]) in list(clinic.handled)


async def test_a_retry_that_its_subscription_does_not_live_to_see_can_be_begun_again(
    backend: Backend,
) -> None:
    """Without a log it would be called under way for ever: neither delivered, nor to be retried."""
    bus = await backend.running(worker_count=1)
    seen: Seen[int] = Seen()
    entered, go_on = asyncio.Event(), asyncio.Event()
    failing = True

    async def handle(event: Moved) -> None:
        if event.n == 0 and failing:
            raise ValueError("parked")
        if event.n == 9:
            entered.set()
            await go_on.wait()
        seen.add(event.n)

    subscription = bus.subscribe(Moved, handle, name="board", retry=ONCE)
    await bus.publish(Moved("rook", 0))
    await bus.drain(30)
    [letter] = await bus.dead_letters.list()
    await bus.publish(Moved("king", 9))
    await entered.wait()
    failing = False
    assert await bus.dead_letters.retry(letter.id) == 1
    bus.unsubscribe(subscription)
    go_on.set()
    bus.subscribe(Moved, handle, name="board", retry=ONCE)
    await bus.drain(30)
    for left in await bus.dead_letters.list():
        assert await bus.dead_letters.retry(left.id) == 1
    await bus.drain(30)
    assert await bus.dead_letters.list() == []
    assert 0 in seen


async def test_a_key_stays_parked_for_who_subscribes_again_under_the_name(backend: Backend) -> None:
    """The dead letter outlives the subscription, so what queues behind it must too, and newer events behind
    that.
    """
    bus = await backend.running()
    seen: Seen[int] = Seen()
    failing = True

    async def handle(event: Moved) -> None:
        if event.n == 0 and failing:
            raise ValueError("parked")
        seen.add(event.n)

    subscription = bus.subscribe(Moved, handle, name="board", retry=ONCE, on_exhausted="park_key")
    for n in range(3):
        await bus.publish(Moved("rook", n))
    await bus.drain(30)
    bus.unsubscribe(subscription)
    bus.subscribe(Moved, handle, name="board", retry=ONCE, on_exhausted="park_key")
    await bus.drain(30)
    await bus.publish(Moved("rook", 3))
    await bus.drain(30)
    assert seen == []
    failing = False
    [letter] = await bus.dead_letters.list()
    assert letter.queued == 3
    assert await bus.dead_letters.retry(letter.id) == 1
    await bus.drain(30)
    assert seen == [0, 1, 2, 3]
