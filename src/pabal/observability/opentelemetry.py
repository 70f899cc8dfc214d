"""OpenTelemetry traces (extra ``otel``): a span for each publish and each attempt, even across restarts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from weakref import WeakSet

from pabal.bus.base import BaseEventBus
from pabal.delivery.context import DeliveryContext, current_event
from pabal.domain.envelope import Receipt
from pabal.domain.event import DomainEvent, adopt, kind_of, replace_header
from pabal.domain.registry import registry
from pabal.errors import MissingExtraError, UsageError

try:
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode, Tracer
except ImportError as error:
    raise MissingExtraError(feature="tracing", extra="otel") from error

__all__ = ["instrument", "with_trace"]

_instrumented: WeakSet[BaseEventBus] = WeakSet()


def with_trace(event: Any) -> DomainEvent:
    """Return ``event`` with the current trace context in its metadata (``traceparent``, ``tracestate``).

    ``instrument`` does this for published events; call it yourself for events stored by ``tx.store_event``.
    Without a current span, the event is returned without a trace. Raises UnregisteredEventError.

    >>> class Swiped(DomainEvent):
    ...     card: str
    >>> swiped = Swiped("c-1")
    >>> with_trace(swiped) == swiped
    True
    """
    event = adopt(event)
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return replace_header(event, metadata={**event.metadata, **carrier}) if carrier else event


def instrument(bus: BaseEventBus, *, tracer: Tracer | None = None, link_after: float = 3600.0) -> None:
    """Trace everything that ``bus`` publishes and handles from now on. Call it once, before handlers run.

    A publish is a PRODUCER span; each attempt is a CONSUMER span below it, even in another process or after a
    restart, because the context is stored in the event's metadata. Attempts on events older than
    ``link_after`` seconds (a replay, a catch-up), and batches, start their own trace, linked to the original.
    For a failed attempt or publish, only the type of the error is recorded, never its message or any payload.
    ``tracer`` defaults to the one named ``pabal`` of the global tracer provider.

    Raises UsageError if the bus is instrumented already.

    >>> from pabal import InMemoryEventBus
    >>> instrument(InMemoryEventBus())
    """
    if bus in _instrumented:
        raise UsageError("this bus is instrumented already; a second time would double every span")
    _instrumented.add(bus)
    tracing = _Tracing(tracer or trace.get_tracer("pabal"), link_after)
    publish, publish_batch, publish_threadsafe = bus.publish, bus.publish_batch, bus.publish_threadsafe

    async def traced_publish(
        event: Any, *, delay: float | None = None, deliver_at: datetime | None = None
    ) -> Receipt:
        event = adopt(event)
        with tracing.publishing([event]):
            return await publish(with_trace(event), delay=delay, deliver_at=deliver_at)

    async def traced_batch(events: Iterable[Any]) -> list[Receipt]:
        adopted = [adopt(event) for event in events]
        with tracing.publishing(adopted):
            return await publish_batch([with_trace(event) for event in adopted])

    def traced_threadsafe(event: Any) -> Future[Receipt]:
        # The future completes in another thread; the span covers only the call itself.
        event = adopt(event)
        with tracing.publishing([event]):
            return publish_threadsafe(with_trace(event))

    bus.publish = traced_publish  # type: ignore[method-assign]
    bus.publish_batch = traced_batch  # type: ignore[method-assign]
    bus.publish_threadsafe = traced_threadsafe  # type: ignore[method-assign]
    bus.use(tracing.attempt)


class _Tracing:
    def __init__(self, tracer: Tracer, link_after: float) -> None:
        self._tracer = tracer
        self._link_after = link_after

    def publishing(self, events: list[DomainEvent]) -> Any:
        types = {registry.schema_of(kind_of(event)).event_type for event in events}
        name = types.pop() if len(types) == 1 else "events"
        attributes: dict[str, Any] = {
            "messaging.system": "pabal",
            "messaging.operation.type": "send",
            "messaging.operation.name": "publish",
            "messaging.destination.name": name,
        }
        if len(events) == 1:
            attributes["messaging.message.id"] = events[0].event_id
        else:
            attributes["messaging.batch.message_count"] = len(events)
        return self._span(f"publish {name}", kind=SpanKind.PRODUCER, attributes=attributes)

    @contextmanager
    def _span(self, name: str, **options: Any) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False, **options
        ) as span:
            try:
                yield
            except BaseException as error:
                # Only the type: the message may quote the payload.
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR))
                raise

    async def attempt(
        self, event: Any, context: DeliveryContext, call_next: Callable[[], Awaitable[Any]]
    ) -> Any:
        parent, links = self._parent_and_links(event)
        attributes: dict[str, Any] = {
            "messaging.system": "pabal",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": context.event_type,
            "messaging.consumer.group.name": context.subscription,
            "messaging.message.id": context.event_id,
            "pabal.attempt": context.attempt,
        }
        if context.correlation_id is not None:
            attributes["messaging.message.conversation_id"] = context.correlation_id
        if context.position is not None:
            attributes["pabal.position"] = context.position
        if isinstance(event, list):
            attributes["messaging.batch.message_count"] = len(event)
        name = f"process {context.event_type}"
        with self._span(name, context=parent, kind=SpanKind.CONSUMER, attributes=attributes, links=links):
            return await call_next()

    def _parent_and_links(self, event: Any) -> tuple[Context, list[Link]]:
        """Return the context to continue, or an empty one and links to the spans of the publishes."""
        if isinstance(event, list):
            return Context(), [link for one in event for link in _links_to(one)]
        event_in_progress = current_event.get()
        if not isinstance(event_in_progress, DomainEvent):
            return Context(), []
        if (datetime.now(UTC) - event_in_progress.occurred_at).total_seconds() > self._link_after:
            return Context(), _links_to(event_in_progress)
        return _context_of(event_in_progress), []


def _context_of(event: DomainEvent) -> Context:
    """Return the trace context in an event's metadata, or an empty one if it is missing or damaged."""
    # Propagators expect text: if an application stores a number under one of their names, they would raise.
    carrier = {name: value for name, value in event.metadata.items() if isinstance(value, str)}
    return propagate.extract(carrier, context=Context())


def _links_to(event: Any) -> list[Link]:
    if not isinstance(event, DomainEvent):
        return []  # the body of an adopted event has no metadata
    origin = trace.get_current_span(_context_of(event)).get_span_context()
    return [Link(origin)] if origin.is_valid else []
