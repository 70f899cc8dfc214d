"""Publish a local log on a bus, so that an application commits its rows and events in one transaction."""

from __future__ import annotations

import asyncio
from contextvars import Context
from types import TracebackType
from typing import Any, Self

from pabal.bus.in_memory import InMemoryEventBus
from pabal.bus.interface import EventBus
from pabal.bus.statistics import Health
from pabal.delivery.retry import RetryPolicy
from pabal.errors import BusNotRunningError, StorageError, SubscriptionError
from pabal.ports.storage import EventStorage, Start

_PATIENT = RetryPolicy(
    max_attempts=10**9, base_delay=0.05, max_delay=5.0, retry_on=(StorageError, BusNotRunningError)
)
"""Retry without end while the server is away or the bus is stopped; other errors park the event."""


class _Outbox(InMemoryEventBus):
    """Read a local log, including events whose class this process has not imported."""

    def __init__(self, storage: EventStorage) -> None:
        super().__init__(storage, worker_count=1)
        self._engine.failures.keeps_unknown = True


class Relay:
    """Publish a local log's events, present and future, on another bus; made by ``relay``.

    ``carried`` is the number of events published since it was made.
    """

    def __init__(
        self, storage: EventStorage, bus: EventBus, *, name: str, types: Any, start: Start, batch: int
    ) -> None:
        self._target = bus
        self._bus = _Outbox(storage)
        self._bus.subscribe(types, self._carry, name=name, batch=batch, start=start, retry=_PATIENT)
        self.carried = 0
        self._waits_for = ""

    async def _carry(self, events: list[Any]) -> None:
        # In an empty context, so that events keep their own cause, and do not get this handler as cause.
        publishing = asyncio.create_task(self._target.publish_batch(events), context=Context())
        try:
            await asyncio.shield(publishing)
        except asyncio.CancelledError:
            publishing.cancel()
            await asyncio.wait([publishing])
            raise
        except (StorageError, BusNotRunningError) as error:
            self._waits_for = str(error)
            raise
        self._waits_for = ""
        self.carried += len(events)

    async def start(self) -> None:
        """Continue where the relay stopped last; harmless when running.

        While another process runs a relay of this name, this one waits, and takes over when that ends.
        """
        await self._bus.start()

    async def stop(self, timeout: float = 10.0) -> None:
        """Stop within ``timeout`` seconds; unpublished events are published after the next start."""
        await self._bus.stop(timeout)

    async def drain(self, timeout: float | None = None) -> None:
        """Return when all events in the local log are published or parked.

        ``timeout`` is in seconds; None waits for ever. Raises DrainTimeoutError, and BusNotRunningError if
        the relay is not running.
        """
        await self._bus.drain(timeout)

    def health(self) -> Health:
        """Return ok, degraded (an event is parked, or the relay waits) or failing, with reasons."""
        health = self._bus.health()
        if not self._waits_for or health.status == "failing":
            return health
        return Health("degraded", (f"the relay waits for the bus: {self._waits_for}", *health.reasons))

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()


def relay(
    storage: EventStorage,
    bus: EventBus,
    *,
    name: str = "relay",
    types: Any = "*",
    start: Start = "beginning",
    batch: int = 500,
) -> Relay:
    """Return a relay from a local log to a bus: the transactional outbox.

    An application commits its rows and its events to ``storage`` together; the relay publishes these events
    on ``bus``, in the order of the local log, at least once. A batch published just before a crash is
    published again afterwards; a bus on Redis recognizes it by the events' ids. The relay is a durable
    subscription called ``name`` in the local log, so only one process runs it at a time. It waits while the
    bus is stopped or its server cannot be reached. An event that the bus refuses (for example, one that is
    too large) is parked, and the others go on. So is an event of a type that this process has not imported:
    import its module and retry it, or exclude such types with ``types``.

    ``types`` and ``start`` are those of ``subscribe``; ``batch`` is the most events published at once. Use it
    as ``async with relay(storage, bus):``, or start and stop it. It neither starts nor stops ``bus``, and
    does not close ``storage``. Raises SubscriptionError for an invalid ``batch`` or pattern.

    >>> import asyncio
    >>> from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage
    >>> class OrderPaid(DomainEvent):
    ...     order: str
    >>> async def main() -> int:
    ...     storage = InMemoryEventStorage()
    ...     await storage.store_event(OrderPaid("o-1"))
    ...     async with InMemoryEventBus() as bus, relay(storage, bus) as outbox:
    ...         await outbox.drain()
    ...         return outbox.carried
    >>> asyncio.run(main())
    1
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise SubscriptionError(f"batch is {batch!r}; it must be an int of at least 1")
    return Relay(storage, bus, name=name, types=types, start=start, batch=batch)
