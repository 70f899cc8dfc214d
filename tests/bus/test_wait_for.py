"""``wait_for``: return the first matching event since a receipt, or the next one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pabal import BusNotRunningError
from pabal.errors import SubscriptionError, UsageError
from tests.bus.samples import Jumped, Moved, NoteTaken, Ticket
from tests.bus.support import Backend, spin_loop


@pytest.mark.parametrize("selector", [Moved, (NoteTaken, Moved), "piece.*", "*"])
async def test_wait_for_returns_the_next_matching_event(backend: Backend, selector: Any) -> None:
    """Everything that selects a subscription's events must work here too."""
    bus = await backend.start_bus()
    waiting = asyncio.create_task(bus.wait_for(selector, where=lambda event: event.n == 2, timeout=10))
    await spin_loop()
    for n in range(4):
        await bus.publish(Moved("rook", n))
    assert await waiting == Moved("rook", 2)


async def test_wait_for_without_a_receipt_ignores_earlier_events(backend: Backend) -> None:
    """An event published before the call must not be returned unless asked for."""
    bus = await backend.start_bus()
    await bus.publish(Moved("rook", 1))
    waiting = asyncio.create_task(bus.wait_for(Moved, timeout=10))
    await spin_loop()
    assert not waiting.done()
    await bus.publish(Moved("rook", 2))
    assert (await waiting).n == 2


async def test_since_finds_a_reaction_published_before_the_call(backend: Backend) -> None:
    """A quick answer would be missed if the wait begins only after the question was published."""
    bus = await backend.start_bus()

    async def answer(event: Moved) -> None:
        await bus.publish(NoteTaken(event.n))

    bus.subscribe(Moved, answer)
    for n in range(5):
        receipt = await bus.publish(Moved("rook", n))
        await bus.drain(60)
        assert (await bus.wait_for(NoteTaken, since=receipt, timeout=10)).n == n


async def test_since_searches_earlier_events_and_then_waits_for_new_ones(backend: Backend) -> None:
    """Between looking back and waiting there must be no gap in which an event is lost."""
    bus = await backend.start_bus()
    receipt = await bus.publish(Moved("rook", 0))
    await bus.publish(NoteTaken(1))
    waiting = asyncio.create_task(
        bus.wait_for(NoteTaken, where=lambda event: event.n == 300, since=receipt, timeout=20)
    )
    for n in range(2, 301):
        await bus.publish(NoteTaken(n))
    assert (await waiting).n == 300


async def test_since_excludes_the_receipts_own_event(backend: Backend) -> None:
    """The caller would get the event that it published itself, instead of one after it."""
    bus = await backend.start_bus()
    await bus.publish(Moved("rook", 1))
    receipt = await bus.publish(Moved("rook", 2))
    with pytest.raises(TimeoutError):
        await bus.wait_for(Moved, since=receipt, timeout=0.05)


async def test_wait_for_raises_on_timeout(backend: Backend) -> None:
    """It would wait for ever, or leave something behind that consumes a later event."""
    bus = await backend.start_bus()
    with pytest.raises(TimeoutError):
        await bus.wait_for(Moved, timeout=0.05)
    await bus.publish(Moved("rook"))
    await bus.drain(60)


async def test_concurrent_wait_for_calls_all_get_the_same_event(backend: Backend) -> None:
    """One caller would take the event away from the others."""
    bus = await backend.start_bus()
    waiting = [asyncio.create_task(bus.wait_for(Moved, timeout=10)) for _ in range(5)]
    waiting.append(asyncio.create_task(bus.wait_for(Jumped, timeout=10)))
    await spin_loop()
    waiting[0].cancel()
    event = Jumped("knight", 1)
    await bus.publish(event)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [event] * 5


async def test_wait_for_works_again_after_all_earlier_calls_have_returned(backend: Backend) -> None:
    """Publishing takes a shorter path while no call waits; switching between the paths must lose nothing."""
    bus = await backend.start_bus()

    async def note(event: Moved) -> None: ...

    bus.subscribe(Moved, note)
    for n in range(10):
        await bus.publish(Moved("rook", n))
        waiting = asyncio.create_task(bus.wait_for(Moved, timeout=10))
        await spin_loop()
        await bus.publish(Moved("rook", 100 + n))
        assert (await waiting).n == 100 + n


async def test_a_wait_for_timeout_names_the_event_waited_for(backend: Backend) -> None:
    """The error would have no message to say what was missing; a TimeoutError of ``where`` is passed on."""
    bus = await backend.start_bus()
    with pytest.raises(TimeoutError, match=r"^no matching Moved or NoteTaken came within 0\.01 s$"):
        await bus.wait_for((Moved, NoteTaken), timeout=0.01)
    with pytest.raises(TimeoutError, match=r"^no matching 'piece\.\*' came"):
        await bus.wait_for("piece.*", timeout=0.01)

    def time_out(event: Moved) -> bool:
        raise TimeoutError("the clock of the piece")

    waiting = asyncio.create_task(bus.wait_for(Moved, where=time_out, timeout=10))
    await spin_loop()
    await bus.publish(Moved("rook", 1))
    with pytest.raises(TimeoutError, match="the clock of the piece"):
        await waiting


async def test_a_where_that_raises_fails_the_wait_for_call_and_not_the_publisher(backend: Backend) -> None:
    """The publisher must not suffer from a mistake in another caller's condition."""
    bus = await backend.start_bus()
    where: Any = lambda event: event.missing  # noqa: E731
    waiting = asyncio.create_task(bus.wait_for(Moved, where=where, timeout=10))
    other = asyncio.create_task(bus.wait_for(Moved, timeout=10))
    await spin_loop()
    assert await bus.publish(Moved("rook", 1))
    with pytest.raises(AttributeError):
        await waiting
    assert (await other).n == 1


async def test_a_where_that_raises_cancelled_error_fails_only_its_own_call(backend: Backend) -> None:
    """It would cancel the publisher, or the reader that works for all calls."""
    bus = await backend.start_bus()

    def cancel(event: Moved) -> bool:
        raise asyncio.CancelledError

    waiting = asyncio.create_task(bus.wait_for(Moved, where=cancel, timeout=10))
    other = asyncio.create_task(bus.wait_for(Moved, timeout=10))
    await spin_loop()
    assert await bus.publish(Moved("rook", 1))
    with pytest.raises(SubscriptionError, match=r"where raised CancelledError\(\); it must return True"):
        await waiting
    assert (await other).n == 1


async def test_wait_for_returns_a_registered_dataclass_as_itself(backend: Backend) -> None:
    """The caller must never get the wrapper that carries it."""
    bus = await backend.start_bus()
    receipt = await bus.publish(Moved("rook"))
    await bus.publish(Ticket("A1"))
    assert await bus.wait_for(Ticket, since=receipt, timeout=10) == Ticket("A1")


async def test_a_stop_makes_wait_for_raise(backend: Backend) -> None:
    """No event comes any more: it would wait for ever, or look as if the caller had cancelled it."""
    bus = await backend.start_bus()
    waiting = asyncio.create_task(bus.wait_for(Moved))
    await spin_loop()
    await bus.stop()
    with pytest.raises(BusNotRunningError):
        await asyncio.wait_for(waiting, 10)


async def test_wait_for_rejects_an_invalid_selector(backend: Backend) -> None:
    """A selector that can never match would wait for ever."""
    bus = await backend.start_bus()
    with pytest.raises(SubscriptionError):
        await bus.wait_for(42, timeout=1)  # type: ignore[call-overload]


async def test_wait_for_without_a_log_raises_when_since_is_too_far_back(memory: Backend) -> None:
    """The last 1,024 events are remembered; searching fewer than requested would be a guess."""
    bus = await memory.start_bus()
    receipt = await bus.publish(Moved("rook", 0))
    for n in range(1, 1025):
        await bus.publish(Moved("rook", n))
    assert (await bus.wait_for(Moved, since=receipt, timeout=1)).n == 1
    await bus.publish(Moved("rook", 1025))
    with pytest.raises(UsageError, match="storage"):
        await bus.wait_for(Moved, since=receipt, timeout=1)


async def test_wait_for_with_a_log_searches_back_any_distance(stored: Backend) -> None:
    """The log has every event, so none may be out of reach."""
    bus = await stored.start_bus()
    receipt = await bus.publish(Moved("rook", 0))
    await bus.publish_batch([Moved("rook", n) for n in range(1, 3000)])
    found = await bus.wait_for(Moved, where=lambda event: event.n == 2999, since=receipt, timeout=10)
    assert found.n == 2999


async def test_wait_for_works_inside_a_handler(backend: Backend) -> None:
    """A handler may ask a question and wait for the answer, if another worker can give it."""
    bus = await backend.start_bus(worker_count=2)
    answers: list[int] = []

    async def ask(event: Moved) -> None:
        receipt = await bus.publish(NoteTaken(1))
        answers.append((await bus.wait_for(NoteTaken, where=lambda e: e.n == 2, since=receipt, timeout=10)).n)

    async def answer(event: NoteTaken) -> None:
        if event.n == 1:
            await bus.publish(NoteTaken(2))

    bus.subscribe(Moved, ask)
    bus.subscribe(NoteTaken, answer)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert answers == [2]
