"""The surroundings of a delivery: the event being handled, the context for handlers, and middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import msgspec

from pabal.domain.event import DomainEvent, caused_by


class BatchMark:
    """Stand for a batch being handled. A batch has many causes, so events its handler publishes name none."""


Mark = DomainEvent | BatchMark | None

current_event: ContextVar[Mark] = ContextVar("pabal_current_event", default=None)
"""The event or batch being handled in this context; events published meanwhile name it as their cause."""


def with_cause(event: DomainEvent, mark: Mark) -> DomainEvent:
    """Return ``event`` with the event in ``mark`` as its cause; unchanged if ``mark`` is no event."""
    return caused_by(event, mark) if isinstance(mark, DomainEvent) else event


class DeliveryContext(msgspec.Struct, frozen=True, gc=False):
    """Describe the delivery to a handler that declares a second parameter.

    ``attempt`` counts from 1 and continues after a restart; ``position`` is None on a bus without storage.
    ``event_id``, ``correlation_id`` and ``causation_id`` are those of the event (for a batch: of its last).
    """

    subscription: str
    event_id: str
    event_type: str
    attempt: int
    position: int | None
    correlation_id: str | None
    causation_id: str | None
    key: Any


Call = Callable[[Any, DeliveryContext], Awaitable[Any]]
Middleware = Callable[[Any, DeliveryContext, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""``async (event, context, call_next)`` around an attempt. Not calling ``call_next`` skips the handler."""


def wrap(call: Call, middleware: tuple[Middleware, ...]) -> Call:
    """Wrap a call in middleware, the first one outermost."""
    for layer in reversed(middleware):
        call = _around(layer, call)
    return call


def _around(layer: Middleware, inner: Call) -> Call:
    async def run(event: Any, context: DeliveryContext) -> Any:
        return await layer(event, context, lambda: inner(event, context))

    return run
