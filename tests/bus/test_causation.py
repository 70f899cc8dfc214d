"""Events published inside a handler name their cause, and carry its correlation id."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import Backend, Recorder


async def test_events_published_by_a_handler_inherit_correlation_and_causation_ids(backend: Backend) -> None:
    """These two ids are used to trace a chain of events; a missing one would break the chain."""
    bus = await backend.start_bus()
    chain: Recorder[Any] = Recorder()

    async def on_moved(event: Moved) -> None:
        chain.add(event)
        await bus.publish(NoteTaken(1))

    async def on_note_taken(event: NoteTaken) -> None:
        chain.add(event)
        if event.n < 3:
            await bus.publish_batch([NoteTaken(event.n + 1)])

    bus.subscribe(Moved, on_moved)
    bus.subscribe(NoteTaken, on_note_taken)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert len(chain) == 4
    first = chain[0]
    assert (first.correlation_id, first.causation_id) == (None, None)
    for cause, effect in zip(chain, list(chain)[1:], strict=False):
        assert effect.causation_id == cause.event_id
        assert effect.correlation_id == first.event_id


async def test_ids_set_by_the_caller_are_kept(backend: Backend) -> None:
    """Inheritance fills in missing ids and never overwrites any."""
    bus = await backend.start_bus()
    seen: Recorder[NoteTaken] = Recorder()

    async def on_moved(event: Moved) -> None:
        await bus.publish(NoteTaken(1, correlation_id="mine"))
        await bus.publish(NoteTaken(2, causation_id="other"))

    async def on_note_taken(event: NoteTaken) -> None:
        seen.add(event)

    bus.subscribe(Moved, on_moved)
    bus.subscribe(NoteTaken, on_note_taken)
    cause = Moved("rook", correlation_id="theirs")
    await bus.publish(cause)
    await bus.drain(60)
    by_n = {event.n: event for event in seen}
    assert (by_n[1].correlation_id, by_n[1].causation_id) == ("mine", cause.event_id)
    assert (by_n[2].correlation_id, by_n[2].causation_id) == ("theirs", "other")


async def test_events_published_by_a_handlers_tasks_carry_its_causation_id(backend: Backend) -> None:
    """``gather`` inside a handler runs tasks; their events have the same cause."""
    bus = await backend.start_bus()
    seen: Recorder[NoteTaken] = Recorder()

    async def on_moved(event: Moved) -> None:
        await asyncio.gather(bus.publish(NoteTaken(1)), bus.publish(NoteTaken(2)))

    async def on_note_taken(event: NoteTaken) -> None:
        seen.add(event)

    bus.subscribe(Moved, on_moved)
    bus.subscribe(NoteTaken, on_note_taken)
    receipt = await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert [event.causation_id for event in seen] == [receipt.event_id] * 2


async def test_events_published_outside_a_handler_have_no_causation_id(backend: Backend) -> None:
    """A cause left over from an earlier delivery would link unrelated events."""
    bus = await backend.start_bus(worker_count=1)
    seen: Recorder[NoteTaken] = Recorder()

    async def on_moved(event: Moved) -> None: ...

    async def on_note_taken(event: NoteTaken) -> None:
        seen.add(event)

    bus.subscribe(Moved, on_moved)
    bus.subscribe(NoteTaken, on_note_taken)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    await bus.publish(NoteTaken(1))
    await bus.drain(60)
    assert [(event.correlation_id, event.causation_id) for event in seen] == [(None, None)]
