"""Measure a run from outside: middleware for latencies, a telemetry listener for failures."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import msgspec

from pabal import DeliveryContext, DomainEvent
from pabal.domain.counting import counted
from pabal.ports.storage import Committed
from pabal.ports.telemetry import AttemptFailed, EventParked, Report

_MAX_NEWS = 50


class News(msgspec.Struct, frozen=True):
    """A retry or a dead letter, and what happened next."""

    at: float
    """Seconds since the run began."""
    kind: Literal["retry", "dead letter"]
    what: str
    then: str


class Meter:
    """Count events by type as they are committed, and time them from publishing to the end of handling.

    ``pulse`` is set whenever an event was handled; whoever waits for it clears it.
    """

    def __init__(self) -> None:
        self.started_at = time.time()
        self.committed: Counter[str] = Counter()
        self.fresh = 0
        """The number of events committed by this process."""
        self.latencies: dict[str, array[float]] = {}
        """For each subscription: seconds from the creation of an event, right before it was published, to the
        end of its handling."""
        self.retries = 0
        self._letters: deque[News] = deque(maxlen=_MAX_NEWS)
        self._retries: deque[News] = deque(maxlen=_MAX_NEWS)
        self.pulse = asyncio.Event()
        self._last_error = ""

    def begin(self, before: Mapping[str, int]) -> None:
        """Start measuring now, given the number of events by type already in the log."""
        self.started_at = time.time()
        self.committed.update(before)

    @property
    def elapsed(self) -> float:
        """Return the seconds since the run began."""
        return time.time() - self.started_at

    async def measure(
        self, event: Any, context: DeliveryContext, call_next: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Time one handling; used as middleware."""
        result = await call_next()
        self._record_latencies(context.subscription, event if isinstance(event, Sequence) else (event,))
        self.pulse.set()
        return result

    def _record_latencies(self, subscription: str, events: Sequence[DomainEvent]) -> None:
        now = time.time()
        latencies = self.latencies.setdefault(subscription, array("d"))
        for event in events:
            created_at = event.occurred_at.timestamp()
            # Events left by an earlier process waited for this process to start, not for the bus.
            if created_at >= self.started_at:
                latencies.append(max(0.0, now - created_at))

    def count(self, batch: Committed) -> None:
        """Count the events of a commit; called from the storage's thread."""
        self.fresh += len(batch.events)
        self.committed.update(event.event_type for event in batch.events)

    def listen(self, report: Report) -> None:
        """Record retries and dead letters; used as telemetry listener."""
        if isinstance(report, AttemptFailed):
            self._last_error = str(report.error)
            if report.delay is not None:
                self.retries += 1
                self._add_news(
                    self._retries,
                    "retry",
                    f"{report.subscription}: {report.error}",
                    f"again in {report.delay * 1000:.0f} ms",
                )
        elif isinstance(report, EventParked):
            self._add_news(
                self._letters,
                "dead letter",
                f"{report.subscription}: {self._last_error}",
                f"parked after {counted(report.attempts, 'attempt')}, payload and tracebacks kept; other "
                "events continue",
            )
            self.pulse.set()

    def _add_news(
        self, where: deque[News], kind: Literal["retry", "dead letter"], what: str, then: str
    ) -> None:
        where.append(News(self.elapsed, kind, what, then))

    @property
    def news(self) -> tuple[News, ...]:
        """Return the latest news of both kinds, kept apart so that retries do not push out dead letters."""
        return (*self._letters, *self._retries)

    def percentile(self, percent: int, subscription: str | None = None) -> float | None:
        """Return a percentile of the latencies in milliseconds, of one subscription or of all."""
        latencies = (
            self.latencies.values() if subscription is None else [self.latencies.get(subscription, ())]
        )
        ordered = sorted(chain.from_iterable(latencies))
        if not ordered:
            return None
        return 1000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
