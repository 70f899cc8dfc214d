"""Record what a bus publishes and delivers, for a test to check afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pabal.bus.interface import EventBus
from pabal.bus.options import E, Kind
from pabal.delivery.context import DeliveryContext
from pabal.errors import PatternMatchesNothingWarning


class Delivery(msgspec.Struct, frozen=True):
    """One recorded attempt: the subscription, the event (a list for a batch), and how it ended.

    ``error`` is None if the handler returned. Events rejected by ``where`` are not attempts.
    """

    subscription: str
    event: Any
    attempt: int
    error: BaseException | None


class EventRecorder:
    """Record every event and every attempt of one bus, in order, from now on.

    ``published`` holds the events, ``deliveries`` the attempts of all other subscriptions. Events are
    recorded by a subscription, attempts by a middleware; both are complete after ``await bus.drain()``.
    Attach it before you subscribe handlers whose own middleware should run inside.

    >>> import asyncio
    >>> from pabal import DomainEvent, InMemoryEventBus
    >>> class LampLit(DomainEvent):
    ...     room: str
    >>> async def main():
    ...     bus = InMemoryEventBus()
    ...     recorder = EventRecorder(bus)
    ...     async with bus:
    ...         await bus.publish(LampLit("hall"))
    ...         await bus.drain()
    ...     return recorder.published == [LampLit("hall")]
    >>> asyncio.run(main())
    True
    """

    NAME = "event-recorder"
    """The name of the recorder's subscription."""

    def __init__(self, bus: EventBus) -> None:
        self.published: list[Any] = []
        """Every event, in publish order."""
        self.deliveries: list[Delivery] = []
        """Every attempt of every other subscription, in the order in which they ended."""
        with warnings.catch_warnings():
            # A recorder may be attached before any event class is defined.
            warnings.simplefilter("ignore", PatternMatchesNothingWarning)
            # A single ordering key keeps the recorded order the same as the published order.
            bus.subscribe("*", self._record_event, name=self.NAME, ordering=lambda event: self.NAME)
        bus.use(self._record_attempt)

    async def _record_event(self, event: Any) -> None:
        self.published.append(event)

    async def _record_attempt(
        self, event: Any, context: DeliveryContext, call_next: Callable[[], Awaitable[Any]]
    ) -> Any:
        error: BaseException | None = None
        try:
            return await call_next()
        except BaseException as caught:
            error = caught
            raise
        finally:
            if context.subscription != self.NAME:
                self.deliveries.append(Delivery(context.subscription, event, context.attempt, error))

    def published_of(self, kind: Kind[E]) -> list[E]:
        """Return the published events of a class and its subclasses."""
        wanted: Any = kind
        return [event for event in self.published if isinstance(event, wanted)]

    def handled_by(self, subscription: str) -> list[Any]:
        """Return the events that a subscription handled successfully, in that order, batches flattened."""
        handled: list[Any] = []
        for delivery in self.deliveries:
            if delivery.subscription == subscription and delivery.error is None:
                handled += delivery.event if isinstance(delivery.event, list) else [delivery.event]
        return handled

    def failures_of(self, subscription: str) -> list[Delivery]:
        """Return the failed attempts of a subscription, in the order in which they ended."""
        return [
            delivery
            for delivery in self.deliveries
            if delivery.subscription == subscription and delivery.error is not None
        ]

    def clear(self) -> None:
        """Delete everything recorded so far; recording continues."""
        self.published.clear()
        self.deliveries.clear()
