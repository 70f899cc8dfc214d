"""``publish`` and ``publish_batch``: receipts, all or none, and cancelling. Promise 10."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pabal import BaseEventBus
from pabal.errors import DuplicateEventError, InvalidEventError
from tests.bus.samples import Measured, Moved, Ticket
from tests.bus.support import Backend, Recorder, numbers, spin_loop


async def stored_ids(bus: BaseEventBus) -> list[str]:
    assert bus.storage is not None
    return [envelope.event_id async for envelope in bus.storage.read()]


async def test_a_receipt_is_truthy_and_holds_the_event_id_and_position(backend: Backend) -> None:
    """The specification uses ``if await bus.publish(…)``; the position is where the event can be read."""
    bus = await backend.start_bus()
    events = [Moved("rook", n) for n in range(3)]
    receipts = [await bus.publish(event) for event in events]
    assert all(receipts)
    assert [receipt.event_id for receipt in receipts] == [event.event_id for event in events]
    assert [receipt.position for receipt in receipts] == ([1, 2, 3] if backend.stored else [None] * 3)


async def test_an_event_is_in_the_log_whenever_publish_returns(stored: Backend) -> None:
    """The second publish of a class must take no shortcut past the log."""
    bus = await stored.start_bus()
    assert bus.storage is not None

    async def handle(event: Moved) -> None: ...

    bus.subscribe(Moved, handle)
    for n in range(20):
        event = Moved("rook", n)
        receipt = await bus.publish(event)
        assert await bus.storage.get_event(event.event_id) == event
        assert receipt.position == n + 1
        if n % 5 == 0:
            await bus.drain(60)


async def test_an_event_without_subscribers_is_published(backend: Backend) -> None:
    """Subscriptions come and go; the log also serves later ones."""
    bus = await backend.start_bus()
    assert await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    assert bus.get_statistics()["events_published"] == 1


async def test_publish_batch_keeps_the_order_and_returns_a_receipt_for_each(backend: Backend) -> None:
    """Events of a batch would be handled out of order, or a publisher could not tell their receipts apart."""
    bus = await backend.start_bus()
    seen: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event)

    bus.subscribe(Moved, handle)
    receipts = await bus.publish_batch(Moved("rook", n) for n in range(50))
    assert [receipt.position for receipt in receipts] == (
        list(range(1, 51)) if backend.stored else [None] * 50
    )
    await bus.drain(60)
    assert numbers(seen) == list(range(50))
    assert await bus.publish_batch([]) == []


@pytest.mark.parametrize("place", [0, 5, 9])
@pytest.mark.parametrize("bad", [lambda: Measured(float("nan")), object])
async def test_a_batch_with_one_bad_event_publishes_none(
    backend: Backend, place: int, bad: Callable[[], Any]
) -> None:
    """Half a batch would be a state that was never meant to be published."""
    bus = await backend.start_bus()
    seen: Recorder[Any] = Recorder()

    async def handle(event: Any) -> None:
        seen.add(event)

    bus.subscribe("*", handle)
    events: list[Any] = [Moved("rook", n) for n in range(9)]
    events.insert(place, bad())
    with pytest.raises(InvalidEventError):
        await bus.publish_batch(events)
    await bus.drain(60)
    assert seen == []
    assert bus.get_statistics()["events_published"] == 0
    if bus.storage is not None:
        assert await stored_ids(bus) == []


async def test_publishing_an_event_twice_stores_it_once_and_returns_the_same_position(
    stored: Backend,
) -> None:
    """Promise 10. A caller who does not know whether a publish went through can simply repeat it."""
    bus = await stored.start_bus()
    seen: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event)

    bus.subscribe(Moved, handle)
    event = Moved("rook", 1)
    first = await bus.publish(event)
    await bus.publish(Moved("rook", 2))
    again = await bus.publish(event)
    together = await bus.publish_batch([event, Moved("rook", 3), event])
    await bus.drain(60)
    assert (first.position, again.position) == (1, 1)
    assert [receipt.position for receipt in together] == [1, 3, 1]
    assert numbers(seen) == [1, 2, 3]
    assert len(await stored_ids(bus)) == 3


async def test_publish_rejects_a_known_id_with_different_content(stored: Backend) -> None:
    """An id with two meanings would make repeating a publish unsafe."""
    bus = await stored.start_bus()
    event = Moved("rook", 1)
    await bus.publish(event)
    with pytest.raises(DuplicateEventError, match="position 1 with different content"):
        await bus.publish(Moved("rook", 2, event_id=event.event_id))
    assert len(await stored_ids(bus)) == 1


class CancelAfterSteps:
    """Cancel an awaitable after a number of its steps; ``finished`` says whether it ended before that."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.finished = False

    async def run(self, publish: Callable[[], Any]) -> None:
        task = asyncio.ensure_future(publish())
        for _ in range(self.steps):
            await asyncio.sleep(0)
        self.finished = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_cancelling_publish_anywhere_leaves_the_event_absent_or_stored_once(stored: Backend) -> None:
    """Promise 10. A cancelled request handler must neither lose nor duplicate the event it was publishing."""
    bus = await stored.start_bus()
    seen: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event)

    bus.subscribe(Moved, handle)
    events = []
    for steps in range(60):
        event = Moved("rook", steps)
        events.append(event)
        await CancelAfterSteps(steps % 30).run(lambda event=event: bus.publish(event))  # type: ignore[misc]
        ids = await stored_ids(bus)
        assert ids.count(event.event_id) <= 1, "duplicate"
    receipts = [await bus.publish(event) for event in events]
    ids = await stored_ids(bus)
    assert sorted(ids) == sorted(event.event_id for event in events), "lost or duplicate"
    for event, receipt in zip(events, receipts, strict=True):
        assert receipt.position == ids.index(event.event_id) + 1
    await bus.drain(60)
    assert sorted(numbers(seen)) == list(range(60))


async def test_cancelling_a_batch_anywhere_stores_all_of_it_or_none(stored: Backend) -> None:
    """Promise 10. All or none holds for a cancelled batch too."""
    bus = await stored.start_bus()
    for steps in range(40):
        batch = [Moved("rook", n) for n in range(5)]
        await CancelAfterSteps(steps % 20).run(lambda batch=batch: bus.publish_batch(batch))  # type: ignore[misc]
        await bus.publish(Moved("after", steps))  # everything that was in progress before is decided now
        ids = await stored_ids(bus)
        assert sum(ids.count(event.event_id) for event in batch) in (0, 5)
    await bus.drain(60)


async def test_cancelling_publish_while_it_waits_for_room_publishes_nothing(memory: Backend) -> None:
    """Promise 10. The event of a publisher that gave up waiting must not appear later."""
    bus = await memory.start_bus(max_queue_size=1)
    release = asyncio.Event()
    seen: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        await release.wait()
        seen.add(event)

    bus.subscribe(Moved, handle)
    await bus.publish(Moved("rook", 1))
    await CancelAfterSteps(5).run(lambda: bus.publish(Moved("rook", 2)))
    release.set()
    await bus.drain(60)
    await bus.publish(Moved("rook", 3))
    await bus.drain(60)
    assert numbers(seen) == [1, 3]


async def test_a_registered_dataclass_is_published_and_received_as_itself(backend: Backend) -> None:
    """Teams with their own event classes must not have to inherit from DomainEvent."""
    bus = await backend.start_bus()
    seen: Recorder[Ticket] = Recorder()

    async def sell(ticket: Ticket) -> None:
        seen.add(ticket)

    bus.subscribe(Ticket, sell)
    for seat in ("A1", "A2"):
        assert await bus.publish(Ticket(seat, ["coat"]))
    await bus.drain(60)
    assert seen == [Ticket("A1", ["coat"]), Ticket("A2", ["coat"])]


async def test_many_publishers_at_once_are_all_acknowledged(backend: Backend) -> None:
    """Group commit resolves a hundred publishers together; none may be forgotten, whatever the queue size."""
    bus = await backend.start_bus(max_queue_size=7)
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event.n)

    await asyncio.gather(*(bus.publish(Moved("unsubscribed", n)) for n in range(100)))
    bus.subscribe(Moved, handle)
    receipts = await asyncio.gather(*(bus.publish(Moved(f"piece-{n}", n)) for n in range(300)))
    await bus.drain(60)
    assert len({receipt.event_id for receipt in receipts}) == 300
    assert sorted(seen) == list(range(300))


async def test_a_rejected_event_admits_the_next_publisher(stored: Backend) -> None:
    """With a full intake, the next publisher waits for the one before, even if that one fails."""
    bus = await stored.start_bus(max_queue_size=1)
    event = Moved("rook", 1)
    await bus.publish(event)
    other = Moved("rook", 2, event_id=event.event_id)
    results = await asyncio.gather(
        bus.publish(other), bus.publish(Moved("rook", 3)), bus.publish(other), return_exceptions=True
    )
    assert [type(result).__name__ for result in results] == [
        "DuplicateEventError",
        "Receipt",
        "DuplicateEventError",
    ]
    await spin_loop()
