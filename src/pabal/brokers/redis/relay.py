"""Feed the bus on the server from a local log, so that an application keeps its own transaction."""

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
"""A server that is away or a bus that is stopped is waited for without end; what it never takes is parked."""


class _Outbox(InMemoryEventBus):
    """Read a local log, and leave nothing out because this process has not imported its class."""

    def __init__(self, storage: EventStorage) -> None:
        super().__init__(storage, worker_count=1)
        self._engine.failures.keeps_unknown = True


class Relay:
    """Publish what a local log holds, and what is appended to it, on another bus; made by ``relay``.

    ``carried`` is how many events it has published since it was made.
    """

    def __init__(
        self, storage: EventStorage, bus: EventBus, *, name: str, types: Any, start: Start, batch: int
    ) -> None:
        self._target = bus
        self._bus = _Outbox(storage)
        self._subscription = self._bus.subscribe(
            types, self._carry, name=name, batch=batch, start=start, retry=_PATIENT
        )
        self.carried = 0
        self._waits_for = ""

    async def _carry(self, events: list[Any]) -> None:
        # In an empty context: an event that is passed on has its cause already, and it is not this handler.
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
        """Go on where the local log says; harmless when running.

        While another process runs the relay of this name, this one stands by and takes over when that ends.
        """
        await self._bus.start()

    async def stop(self, timeout: float = 10.0) -> None:
        """Stop within ``timeout`` seconds; what was not published yet is published after the next start."""
        await self._bus.stop(timeout)

    async def drain(self, timeout: float | None = None) -> None:
        """Return when everything in the local log is published or parked.

        ``timeout`` is in seconds; None waits for ever. Raises DrainTimeoutError, and BusNotRunningError while
        the relay does not run.
        """
        await self._bus.drain(timeout)

    def health(self) -> Health:
        """Return ok, degraded (something was parked, or it waits) or failing, and why."""
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

    An application commits its rows and its events to ``storage`` together; the relay publishes those events
    on ``bus``, in the order of the local log, at least once: a batch that was published just before a crash
    is published again afterwards, which a bus on Redis knows by the events' ids. How far it has come is a
    durable subscription called ``name`` in the local log, so only one process runs it at a time. While the
    bus is stopped or its server cannot be reached it waits; an event that the bus refuses (one too large,
    say) is parked, and the rest goes on. So is one of a type that this process has not imported: import its
    module, then retry it, or leave such types out with ``types``.

    ``types`` and ``start`` are what ``subscribe`` takes, ``batch`` is the most events published at once. Use
    as ``async with relay(storage, bus):`` or start and stop it; it neither starts nor stops ``bus``, nor
    closes ``storage``. Raises SubscriptionError for a bad ``batch`` or pattern.

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
