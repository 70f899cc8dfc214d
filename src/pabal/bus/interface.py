"""``EventBus``: the calls that every bus has, whatever carries its events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self

from pabal.delivery.context import Middleware
from pabal.delivery.retry import RetryPolicy
from pabal.delivery.subscription import BY_AGGREGATE, OnExhausted, Ordering, Subscription
from pabal.domain.envelope import Receipt
from pabal.ports.storage import Start


class EventBus(Protocol):
    """Publish events, and deliver each to every subscription that wants it.

    Backends differ in where the log is kept and what it survives. Order per key, retries, dead letters and
    the calls below are the same on all of them.

    >>> import asyncio
    >>> from pabal import DomainEvent, InMemoryEventBus
    >>> class BellRung(DomainEvent):
    ...     door: str
    >>> async def main(bus: EventBus) -> None:
    ...     async def answer(event: BellRung) -> None:
    ...         print("coming to the", event.door)
    ...     async with bus:
    ...         bus.subscribe(BellRung, answer, name="answer")
    ...         await bus.publish(BellRung("front door"))
    ...         await bus.drain()
    >>> asyncio.run(main(InMemoryEventBus()))
    coming to the front door
    """

    async def start(self) -> None:
        """Begin to deliver; harmless if already running."""
        ...

    async def stop(self, timeout: float = 10.0) -> None:
        """Stop within ``timeout`` seconds, plus a moment for cancelling; harmless if already stopped."""
        ...

    async def publish(
        self, event: Any, *, delay: float | None = None, deliver_at: datetime | None = None
    ) -> Receipt:
        """Publish one event; return when it is accepted or, with storage, on disk."""
        ...

    async def publish_batch(self, events: Iterable[Any]) -> list[Receipt]:
        """Publish several events in order, all or none."""
        ...

    def publish_threadsafe(self, event: Any) -> Future[Receipt]:
        """Publish from any thread; events of one thread keep their order."""
        ...

    def subscribe(
        self,
        event_type: Any,
        handler: Any,
        *,
        name: str | None = None,
        priority: int = 1,
        retry: RetryPolicy | None = None,
        retry_count: int | None = None,
        timeout: float | None = None,
        where: Callable[[Any], bool] | None = None,
        ordering: Ordering = BY_AGGREGATE,
        on_exhausted: OnExhausted = "park",
        start: Start = "now",
        batch: int | None = None,
    ) -> Subscription:
        """Call a handler for every event of a type."""
        ...

    def unsubscribe(self, subscription: Subscription | str) -> bool:
        """End a subscription; True if it existed."""
        ...

    def use(self, middleware: Middleware) -> None:
        """Call a middleware around every handler."""
        ...

    async def drain(self, timeout: float | None = None, *, retries: bool = True) -> None:
        """Wait until every published event is handled or parked."""
        ...

    def get_statistics(self) -> dict[str, Any]:
        """Return figures since the start."""
        ...

    async def __aenter__(self) -> Self:
        """Start the bus."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain and stop the bus."""
        ...
