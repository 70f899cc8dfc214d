"""``InMemoryEventBus``: a bus inside one application, with or without a log."""

from __future__ import annotations

import asyncio
from os import PathLike
from typing import Any

from pabal.bus.base import BaseEventBus
from pabal.bus.draining import wait_until_drained
from pabal.bus.intake import Backpressure
from pabal.bus.log_watch import LocalSource, LogWatch
from pabal.bus.statistics import Health, collect, judge
from pabal.delivery.engine import Engine
from pabal.delivery.shutdown import wait_until_idle
from pabal.domain.envelope import Receipt
from pabal.errors import InsideHandlerError, UsageError
from pabal.ports.arguments import at_least_one
from pabal.ports.clock import Clock
from pabal.ports.storage import EventStorage


class InMemoryEventBus(BaseEventBus):
    """Publish events to handlers in this process; ``EventBus`` shows an example.

    Without ``event_storage``, everything is kept in memory, and ``max_queue_size`` limits the number of
    pending deliveries (an event for three subscriptions counts three times). ``backpressure`` says what a
    full bus does: make publishers wait, raise QueueFullError, or drop the oldest delivery and count it.
    Publishing inside a handler never waits, because it would wait for itself.

    With ``event_storage``, ``publish`` returns when the event is stored, every subscription has a durable
    cursor under its name, and memory is limited per subscription: one that lags reads from the log.

    A bus belongs to the event loop that starts it. For tests, ``seed`` fixes the jitter, and ``clock`` the
    time.
    """

    def __init__(
        self,
        event_storage: EventStorage | None = None,
        *,
        worker_count: int = 4,
        max_queue_size: int = 10_000,
        backpressure: Backpressure = "wait",
        clock: Clock | None = None,
        seed: int | None = None,
        owns_storage: bool = False,
    ) -> None:
        if isinstance(event_storage, (str, PathLike)):
            raise UsageError(
                f"event_storage is {event_storage!r}; it must be a storage; for a bus on a file use "
                "EventBusFactory.create_default_event_bus(path)"
            )
        engine = Engine(worker_count=at_least_one("worker_count", worker_count), clock=clock, seed=seed)
        super().__init__(engine, event_storage, max_queue_size=max_queue_size, backpressure=backpressure)
        self._storage, self._owns_storage = event_storage, owns_storage
        self._watch: LogWatch | None = None

    def __repr__(self) -> str:
        """Show the state of the bus and the path of its log."""
        log = "no log" if self._storage is None else f"log {self._storage.path}"
        return f"<InMemoryEventBus {self._state}, {log}>"

    @property
    def storage(self) -> EventStorage | None:
        """Return the bus's storage, or None."""
        return self._storage

    @property
    def clock(self) -> Clock:
        """Return the clock that the bus goes by."""
        return self._engine.clock

    async def _begin(self) -> None:
        if self._storage is not None and self._owns_storage:
            await asyncio.to_thread(self._storage.open)  # a stop() has closed it
        await self._engine.start(self._storage)
        if self._storage is not None:
            self._watch = LogWatch(LocalSource(self._engine, self._storage))

    async def _end(self, deadline: float) -> None:
        self._intake.is_open = False
        await self._inbox.flush(deadline)
        if self._storage is None and self._loop is not None and not self._loop.is_closed():
            await wait_until_idle(self._engine, deadline)
        await self._engine.stop(deadline)
        self._inbox.close()
        self._loop = None
        self._expectations.stop()
        if self._watch is not None:
            await self._watch.stop()
        if self._storage is not None and self._owns_storage:
            await self._storage.aclose()
        self._state = "stopped"

    # -- waiting --------------------------------------------------------------------------------------

    async def drain(self, timeout: float | None = None, *, retries: bool = True) -> None:
        """Wait until every event published so far is handled or parked and, with storage, saved.

        This includes deliveries that wait for a retry, unless ``retries`` is False, but neither events
        scheduled with ``delay`` nor those queued behind a parked key. Raises DrainTimeoutError after
        ``timeout`` seconds, and InsideHandlerError inside a handler, where it would wait for itself.
        """
        if self._engine.in_handler():
            raise InsideHandlerError(action="wait for drain()")
        self._check_running("drain")
        await wait_until_drained(self._engine, self._inbox, self._intake, timeout, retries)

    async def _first(self, event_type: Any, where: Any, since: Receipt | None) -> Any:
        feed = self._engine.feed
        if self._watch is not None and feed is not None:
            after = max(feed.head, self._intake.last_position)  # news of a large commit comes in slices
            if since is not None and since.position is not None:
                after = since.position
            return await self._watch.first(event_type, where, [after], has_earlier=after < feed.head)
        return await self._expectations.wait(event_type, where, since)

    # -- looking --------------------------------------------------------------------------------------

    def get_statistics(self) -> dict[str, Any]:
        """Return figures since the start; ``subscriptions`` holds those of each subscription, by name."""
        return collect(
            self._engine,
            uptime=self._engine.clock.monotonic() - self._started_at if self.is_running else 0.0,
            published=self._intake.published,
            scheduled=self._intake.scheduled,
            is_running=self.is_running,
            stored=self._storage is not None,
        )

    def health(self) -> Health:
        """Return ok, degraded or failing, with the reasons as sentences."""
        return judge(self._engine, self.is_running, self._max_queue_size, self._storage is not None)
