"""``bus.use``: middleware has one form, ``async (event, context, call_next)``, around every attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pabal import DeliveryContext, RetryPolicy
from tests.bus.samples import Moved, NoteTaken, Ticket
from tests.bus.support import ONE_ATTEMPT, RETRY_AT_ONCE, Backend, Recorder, numbers

Next = Callable[[], Awaitable[Any]]


async def test_middleware_wraps_the_handler_in_the_order_it_was_added(backend: Backend) -> None:
    """In another order than the usual one, with the first outermost, tracing would miss what others do."""
    bus = await backend.start_bus()
    order: Recorder[str] = Recorder()

    def layer(name: str) -> Any:
        async def run(event: Any, context: DeliveryContext, call_next: Next) -> Any:
            order.add(f"{name} in")
            result = await call_next()
            order.add(f"{name} out")
            return result

        return run

    async def handle(event: Moved) -> None:
        order.add("handler")

    bus.use(layer("outer"))
    bus.subscribe(Moved, handle)
    bus.use(layer("inner"))
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert order == ["outer in", "inner in", "handler", "inner out", "outer out"]


async def test_middleware_sees_every_attempt_with_its_context(backend: Backend) -> None:
    """Tracing needs the attempt, the subscription and the event."""
    bus = await backend.start_bus()
    seen: Recorder[tuple[str, int, str]] = Recorder()

    async def trace(event: Any, context: DeliveryContext, call_next: Next) -> Any:
        try:
            return await call_next()
        except ValueError:
            seen.add((context.subscription, context.attempt, event.piece))
            raise

    async def fail(event: Moved) -> None:
        raise ValueError("no")

    bus.use(trace)
    bus.subscribe(Moved, fail, name="book", retry=RetryPolicy(max_attempts=2, base_delay=0))
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert seen == [("book", 1, "rook"), ("book", 2, "rook")]
    assert len(await bus.dead_letters.list()) == 1


async def test_middleware_that_does_not_call_next_skips_the_handler_without_a_failure(
    backend: Backend,
) -> None:
    """Deduplication works like this: its skipped events must not become dead letters."""
    bus = await backend.start_bus()
    seen: Recorder[int] = Recorder()

    async def only_even(event: Any, context: DeliveryContext, call_next: Next) -> Any:
        return await call_next() if event.n % 2 == 0 else None

    async def handle(event: Moved) -> None:
        seen.add(event.n)

    bus.use(only_even)
    bus.subscribe(Moved, handle)
    await bus.publish_batch([Moved("rook", n) for n in range(6)])
    await bus.drain(60)
    assert seen == [0, 2, 4]
    assert await bus.dead_letters.list() == []


async def test_middleware_that_raises_fails_the_attempt(backend: Backend) -> None:
    """An open circuit breaker is a failure like the handler's own."""
    bus = await backend.start_bus()
    calls = 0

    async def breaker(event: Any, context: DeliveryContext, call_next: Next) -> Any:
        if context.attempt == 1:
            raise ConnectionError("open")
        return await call_next()

    async def handle(event: Moved) -> None:
        nonlocal calls
        calls += 1

    bus.use(breaker)
    bus.subscribe(Moved, handle, retry=RETRY_AT_ONCE)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert calls == 1


async def test_middleware_may_call_the_handler_again(backend: Backend) -> None:
    """Middleware that retries inside an attempt would fail at its second call."""
    bus = await backend.start_bus()
    calls = 0

    async def twice(event: Any, context: DeliveryContext, call_next: Next) -> Any:
        try:
            return await call_next()
        except ValueError:
            return await call_next()

    async def fail_once(event: Moved) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("once")

    bus.use(twice)
    bus.subscribe(Moved, fail_once, retry=ONE_ATTEMPT)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert calls == 2
    assert await bus.dead_letters.list() == []


@pytest.mark.parametrize("shape", ["async", "sync", "batch", "timeout", "dataclass", "context"])
async def test_middleware_wraps_handlers_of_every_shape(backend: Backend, shape: str) -> None:
    """A form that bypasses middleware bypasses authentication, tracing and deduplication."""
    bus = await backend.start_bus()
    wrapped: Recorder[Any] = Recorder()
    handled: Recorder[Any] = Recorder()

    async def note(event: Any, context: DeliveryContext, call_next: Next) -> Any:
        wrapped.add(event)
        return await call_next()

    async def handle(event: Any) -> None:
        handled.add(event)

    async def handle_with_context(event: Any, context: DeliveryContext) -> None:
        handled.add(event)

    bus.use(note)
    if shape == "sync":
        bus.subscribe(Moved, handled.add)
    elif shape == "batch":
        bus.subscribe(Moved, handle, batch=5)
    elif shape == "timeout":
        bus.subscribe(Moved, handle, timeout=60)
    elif shape == "dataclass":
        bus.subscribe(Ticket, handle)
    elif shape == "context":
        bus.subscribe(Moved, handle_with_context)
    else:
        bus.subscribe(Moved, handle)
    event: Any = Ticket("A1") if shape == "dataclass" else Moved("rook", 1)
    await bus.publish(event)
    await bus.drain(60)
    assert wrapped == [[event] if shape == "batch" else event]
    assert wrapped == handled


async def test_middleware_runs_under_the_causation_and_timeout_of_its_delivery(
    backend: Backend,
) -> None:
    """Events that middleware publishes are caused by the event; time it waits counts towards the limit."""
    bus = await backend.start_bus()
    seen: Recorder[NoteTaken] = Recorder()

    async def audit(event: Any, context: DeliveryContext, call_next: Next) -> Any:
        if isinstance(event, Moved):
            await bus.publish(NoteTaken(event.n))
            await asyncio.Event().wait()
        return await call_next()

    async def handle(event: Moved) -> None: ...

    async def on_note_taken(event: NoteTaken) -> None:
        seen.add(event)

    bus.use(audit)
    bus.subscribe(Moved, handle, timeout=0.05, retry=ONE_ATTEMPT)
    bus.subscribe(NoteTaken, on_note_taken)
    receipt = await bus.publish(Moved("rook", 7))
    await bus.drain(60)
    assert [(event.n, event.causation_id) for event in seen] == [(7, receipt.event_id)]
    [letter] = await bus.dead_letters.list()
    assert letter.attempts[0].error_type == "TimeoutError"


async def test_middleware_added_to_a_running_bus_applies_from_the_next_delivery(backend: Backend) -> None:
    """Deliveries must leave the fast path, used without middleware, as soon as there is some."""
    bus = await backend.start_bus()
    wrapped: Recorder[int] = Recorder()
    handled: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        handled.add(event)

    bus.subscribe(Moved, handle)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)

    async def note(event: Any, context: DeliveryContext, call_next: Next) -> Any:
        wrapped.add(event.n)
        return await call_next()

    bus.use(note)
    await bus.publish(Moved("rook", 2))
    await bus.drain(60)
    assert wrapped == [2]
    assert numbers(handled) == [1, 2]
