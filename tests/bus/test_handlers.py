"""The forms that a handler can have, and the arguments it receives."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock, NonCallableMock

import pytest

from pabal import DeliveryContext, RetryPolicy
from tests.bus.samples import Moved
from tests.bus.support import Backend, Recorder, numbers


async def test_an_async_function_is_awaited_with_the_event(backend: Backend) -> None:
    """The simplest handler must get the event itself, equal to the one published."""
    bus = await backend.start_bus()
    seen: Recorder[Moved] = Recorder()

    @bus.on(Moved)
    async def note(event: Moved) -> None:
        await asyncio.sleep(0)
        seen.add(event)

    published = Moved("rook", 1)
    await bus.publish(published)
    await bus.drain(60)
    assert seen == [published]
    assert seen[0].event_id == published.event_id


async def test_a_sync_function_runs_in_a_thread_of_its_own(backend: Backend) -> None:
    """A sync handler in the loop's thread would block all other handlers while it runs."""
    bus = await backend.start_bus()
    threads: Recorder[int] = Recorder()

    def note(event: Moved) -> None:
        threads.add(threading.get_ident())

    bus.subscribe(Moved, note)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert list(threads) != [threading.get_ident()]
    assert len(threads) == 1


async def test_an_object_with_a_handle_method_is_a_handler(backend: Backend) -> None:
    """Handlers with state are objects; their ``handle`` may be async or sync."""

    class Counter:
        def __init__(self) -> None:
            self.total = 0

        async def handle(self, event: Moved) -> None:
            self.total += event.n

    class BlockingCounter(Counter):
        def handle(self, event: Moved) -> None:  # type: ignore[override]
            self.total += event.n

    bus = await backend.start_bus()
    counter, blocking = Counter(), BlockingCounter()
    bus.subscribe(Moved, counter)
    bus.subscribe(Moved, blocking)
    await bus.publish(Moved("rook", 3))
    await bus.publish(Moved("rook", 4))
    await bus.drain(60)
    assert (counter.total, blocking.total) == (7, 7)


async def test_bound_methods_partials_and_callable_objects_are_handlers(backend: Backend) -> None:
    """Every kind of callable must be accepted, async or not; otherwise users would wrap them in lambdas."""
    seen: Recorder[tuple[str, int]] = Recorder()

    class Book:
        async def on_move(self, event: Moved) -> None:
            seen.add(("method", event.n))

        async def __call__(self, event: Moved) -> None:
            seen.add(("call", event.n))

    async def tagged(tag: str, event: Moved) -> None:
        seen.add((tag, event.n))

    bus = await backend.start_bus()
    book = Book()
    bus.subscribe(Moved, book.on_move, name="method")
    bus.subscribe(Moved, book, name="call")
    bus.subscribe(Moved, functools.partial(tagged, "partial"), name="partial")
    bus.subscribe(Moved, lambda event: seen.add(("lambda", event.n)), name="lambda")
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    assert sorted(seen) == [("call", 1), ("lambda", 1), ("method", 1), ("partial", 1)]


async def test_a_second_parameter_receives_the_delivery_context(backend: Backend) -> None:
    """A handler has no other way to learn the attempt or the position."""
    bus = await backend.start_bus()
    seen: Recorder[DeliveryContext] = Recorder()

    @bus.on(Moved, name="book", retry=RetryPolicy(max_attempts=3, base_delay=0.0))
    async def note(event: Moved, context: DeliveryContext) -> None:
        seen.add(context)
        if context.attempt < 3:
            raise ValueError("not yet")

    receipt = await bus.publish(Moved("rook", correlation_id="c-1", causation_id="e-0"))
    await bus.drain(60)
    assert [context.attempt for context in seen] == [1, 2, 3]
    last = seen[2]
    assert (last.subscription, last.event_id, last.event_type) == ("book", receipt.event_id, "piece.moved")
    assert (last.correlation_id, last.causation_id) == ("c-1", "e-0")
    assert last.key == ("piece", "rook")
    assert last.position == receipt.position == (1 if backend.stored else None)


async def test_a_sync_handler_receives_the_delivery_context(backend: Backend) -> None:
    """The second parameter must mean the same in a thread."""
    bus = await backend.start_bus()
    seen: Recorder[str] = Recorder()

    def note(event: Moved, context: DeliveryContext) -> None:
        seen.add(context.subscription)

    bus.subscribe(Moved, note, name="book")
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert seen == ["book"]


async def test_a_second_parameter_with_a_default_does_not_receive_the_context(backend: Backend) -> None:
    """``lambda event, log=log: …`` is how loops bind a variable; it must not get a context instead."""
    bus = await backend.start_bus()
    first: Recorder[Any] = Recorder()

    async def keep(event: Moved, into: Recorder[Any] = first) -> None:
        into.add(event)

    bus.subscribe(Moved, keep)
    await bus.publish(Moved("rook", 5))
    await bus.drain(60)
    assert numbers(first) == [5]


async def test_the_awaitable_returned_by_a_sync_function_is_awaited(backend: Backend) -> None:
    """A lambda around a coroutine function would look successful although its handler never ran."""
    bus = await backend.start_bus()
    seen: Recorder[Any] = Recorder()

    async def keep(event: Moved) -> None:
        await asyncio.sleep(0)
        seen.add(event)

    bus.subscribe(Moved, lambda event: keep(event), name="keeper")
    await bus.publish(Moved("rook", 5))
    await bus.drain(60)
    assert numbers(seen) == [5]


@pytest.mark.parametrize("make", [Mock, MagicMock, AsyncMock])
async def test_a_mock_is_called_itself_unless_its_handle_was_set(backend: Backend, make: Any) -> None:
    """A mock has any attribute it is asked for: its ``handle`` would be called instead of the mock itself."""
    bus = await backend.start_bus()
    plain, with_handle = make(), make()
    with_handle.handle = AsyncMock()
    bus.subscribe(Moved, plain, name="plain")
    bus.subscribe(Moved, with_handle, name="with handle")
    bus.subscribe(Moved, NonCallableMock(), name="not callable")
    published = Moved("rook", 1)
    await bus.publish(published)
    await bus.drain(60)
    plain.assert_called_once_with(published)
    with_handle.handle.assert_awaited_once_with(published)
    with_handle.assert_not_called()
