"""Figures and health of a running bus, computed on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from pabal.delivery.buffers import BUFFER_HIGH, BUFFER_LOW
from pabal.delivery.consumer import ACTIVE, HALTED, PAUSED, STANDBY, Consumer
from pabal.delivery.engine import Engine
from pabal.delivery.histogram import quantiles
from pabal.domain.counting import counted


class Health(msgspec.Struct, frozen=True):
    """The state of a bus, with reasons: ``ok``, ``degraded`` (works, but needs attention) or ``failing``.

    If it is ``ok``, the reasons may list, for information, subscriptions that other processes handle.
    """

    status: Literal["ok", "degraded", "failing"]
    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return False only if failing."""
        return self.status != "failing"


def collect(
    engine: Engine, *, uptime: float, published: int, scheduled: int, is_running: bool, stored: bool
) -> dict[str, Any]:
    """Return the figures of ``get_statistics``; ``stored`` tells whether the bus has a log."""
    consumers = list(engine.consumers.values())
    handled = sum(c.figures.handled + c.arrivals.finished for c in consumers)
    timed = sum(c.figures.timed for c in consumers)
    busy = sum(c.figures.busy_seconds for c in consumers)
    return {
        "uptime_seconds": uptime,
        "events_published": published,
        "events_processed": handled,
        "events_failed": sum(c.figures.failed_attempts for c in consumers),
        "events_parked": sum(c.figures.parked for c in consumers),
        "events_dropped": sum(c.figures.dropped for c in consumers),
        "events_scheduled": scheduled,
        "avg_processing_time_ms": 1000 * busy / timed if timed else 0.0,
        "queue_size": engine.pending,
        "retry_queue_size": _waiting_for_retry(engine),
        "failed_events_count": engine.parked,
        "subscription_count": len(consumers),
        "is_running": is_running,
        "worker_count": len(engine.workers) if is_running else 0,
        "subscriptions": {c.name: _subscription_figures(engine, c, stored) for c in consumers},
    }


def _waiting_for_retry(engine: Engine) -> int:
    now = engine.clock.monotonic()
    return sum(failing.due > now for c in engine.consumers.values() for failing in c.failing.values())


def _subscription_figures(engine: Engine, consumer: Consumer, stored: bool) -> dict[str, Any]:
    figures = consumer.figures
    tracker = consumer.tracker
    p50, p99 = quantiles(figures.durations.recent(engine.clock.monotonic()), 0.5, 0.99)
    return {
        "state": consumer.state,
        "reason": consumer.reason,
        "handled": figures.handled + consumer.arrivals.finished,
        "filtered": figures.filtered,
        "failed_attempts": figures.failed_attempts,
        "retried": figures.retried,
        "parked": figures.parked,
        "dropped": figures.dropped,
        "skipped": figures.skipped,
        "in_flight": consumer.in_flight,
        "retrying": len(consumer.failing),
        "blocked_keys": len(consumer.blocked),
        "avg_processing_time_ms": 1000 * figures.busy_seconds / figures.timed if figures.timed else 0.0,
        "p50_ms": None if p50 is None else 1000 * p50,
        "p99_ms": None if p99 is None else 1000 * p99,
        "lag": _lag(engine, consumer) if stored else consumer.queue_length(),
        "watermark": None if tracker is None else tracker.watermark,
    }


def _lag(engine: Engine, consumer: Consumer) -> int | None:
    # Another process may hold it and be far behind: 0 would claim that everything is done.
    return None if engine.feed is None else engine.feed.lag_of(consumer)


class Findings:
    """Collect the reasons for a bus's health: what makes it failing or degraded, and notes."""

    def __init__(self) -> None:
        self.failing: list[str] = []
        self.degraded: list[str] = []
        self.notes: list[str] = []

    def look_at(self, engine: Engine) -> None:
        """Add reasons from an engine's subscriptions and workers; the same reason is added only once."""
        for consumer in engine.consumers.values():
            name = f"subscription {consumer.name!r}"
            if consumer.state == HALTED:
                self._add(self.failing, f"{name} {consumer.reason}")
            elif consumer.state == STANDBY and consumer.reason:
                self._add(self.degraded, f"{name} {consumer.reason}")
            elif consumer.state == STANDBY:
                # If several processes share a log, all but one stand by: nothing is wrong with that.
                self._add(self.notes, f"{name} is handled by another process")
            elif consumer.state == PAUSED:
                self._add(self.degraded, f"{name} is paused; see bus.subscriptions.resume()")
            elif consumer.state == ACTIVE and consumer.blocked:
                keys = ", ".join(sorted(consumer.blocked)[:5])
                self._add(self.degraded, f"{name} keeps events queued behind dead letters of {keys}")
            if engine.feed is not None and len(consumer.failing) >= BUFFER_LOW:
                self._add(self.degraded, f"{name} {many_retries(len(consumer.failing))}")
            if consumer.figures.skipped:
                self._add(self.degraded, f"{name} {skipped_events(consumer.figures.skipped)}")
        trouble = engine.settlement.trouble if engine.feed is not None else None
        if trouble is not None:
            self._add(self.failing, f"progress cannot be saved: {trouble}")
        ended = sum(worker.task.done() for worker in engine.workers)
        if ended:
            count = len(engine.workers)
            self._add(
                self.failing, f"{ended} of {count} workers have ended; restart the bus, and report this bug"
            )

    def note_parked(self, count: int) -> None:
        """Add a reason if there are dead letters."""
        if count:
            self.degraded.append(f"there are dead letters ({count}); list, retry or discard them")

    def health(self) -> Health:
        """Return the health that follows from the reasons."""
        status: Literal["ok", "degraded", "failing"]
        status = "failing" if self.failing else "degraded" if self.degraded else "ok"
        return Health(status, (*self.failing, *self.degraded, *self.notes))

    def _add(self, reasons: list[str], reason: str) -> None:
        if reason not in reasons:
            reasons.append(reason)


def many_retries(count: int) -> str:
    """Return what to say of a subscription that has many deliveries to try again."""
    return (
        f"has {count:,} failed deliveries waiting for a retry; "
        f"at {BUFFER_HIGH:,} it may stop taking new events"
    )


def skipped_events(count: int) -> str:
    """Return what to say of a subscription that passed over events whose class is not imported."""
    return f"skipped {counted(count, 'event of an unregistered type', 'events of unregistered types')}"


NOT_RUNNING = Health("failing", ("the bus is not running",))


def judge(engine: Engine, is_running: bool, max_queue_size: int, stored: bool) -> Health:
    """Return the health of a bus."""
    if not is_running:
        return NOT_RUNNING
    found = Findings()
    found.look_at(engine)
    found.note_parked(engine.parked)
    if not stored and engine.pending >= max_queue_size:
        found.degraded.append(f"the queue is full ({counted(engine.pending, 'delivery', 'deliveries')})")
    if engine.feed is not None:
        found.degraded += unclaimed((engine,))
    return found.health()


def unclaimed(engines: Iterable[Engine]) -> list[str]:
    """Return a sentence for each durable name that has unfinished events but no subscriber."""
    waiting: Counter[str] = Counter()
    for engine in engines:
        for report in engine.feed.leases.unclaimed if engine.feed is not None else ():
            if report.subscription not in engine.consumers:
                waiting[report.subscription] += report.unfinished
    return [
        f"{counted(count, 'event waits', 'events wait')} for {name!r}, "
        "but nothing is subscribed under that name"
        for name, count in waiting.items()
    ]
