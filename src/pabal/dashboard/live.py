"""Send live reports to all open pages: one per second, shared by all, and only while a page is open."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from typing import Any

import msgspec

from pabal.dashboard.bilingual import bilingual, failure_message, preview
from pabal.dashboard.problems import Problem
from pabal.dashboard.report import (
    Counters,
    CounterSnapshot,
    Rates,
    compose,
    rates_between,
    sampled_rates,
    with_sample,
    without_error_messages,
)
from pabal.errors import CorruptDeadLetterError, DeadLetterNotFoundError, PabalError
from pabal.operations import Operations
from pabal.ports.samples import Sample

_REPORT_INTERVAL = 1.0
_RATE_WINDOW = 10.0
"""Seconds over which rates are averaged."""
_GROUPS_TTL = 2.0
_RECOUNT_FACTOR = 20
"""The shortest time between two counts, as a multiple of how long the last one took."""
_TYPES_TTL = 30.0
_MAX_EXPLAINED_GROUPS = 30
_KEEPALIVE_INTERVAL = 15.0
_SAMPLES_TTL = timedelta(seconds=75)
"""Samples older than this are ignored; an idle bus takes one a minute."""


RANGES = {
    "15m": (15 * 60, 15),
    "1h": (3600, 30),
    "6h": (6 * 3600, 180),
    "24h": (24 * 3600, 600),
    "7d": (7 * 24 * 3600, 3600),
}
"""Length and step of each range of the charts, in seconds."""


class Hub:
    """Make reports and send each to all listeners."""

    def __init__(self, operations: Operations, clock: Callable[[], float] = time.monotonic) -> None:
        self._operations = operations
        self._clock = clock
        self._listeners: set[asyncio.Queue[bytes | None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._snapshots: deque[CounterSnapshot] = deque()
        self._latest: tuple[float, dict[str, Any]] | None = None
        self._report_lock = asyncio.Lock()
        self._groups: tuple[float, int, list[dict[str, Any]], float] | None = None
        """When they were counted, of how many dead letters, and when that may be done again."""
        self._types: tuple[float, list[str]] | None = None

    # -- listening -----------------------------------------------------------------------------------------

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events, beginning with the current state, until ``end`` is called."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=2)
        self._listeners.add(queue)
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick(), name="pabal-dashboard")
        try:
            yield b"retry: 2000\n\n"
            yield await self._report_message()
            while True:
                try:
                    message = await asyncio.wait_for(queue.get(), _KEEPALIVE_INTERVAL)
                except TimeoutError:
                    message = b": still here\n\n"
                if message is None:
                    return
                yield message
        finally:
            self._listeners.discard(queue)
            if not self._listeners and self._ticker is not None:
                self._ticker.cancel()
                self._ticker = None

    async def _tick(self) -> None:
        while True:  # the last listener to leave cancels this task
            await asyncio.sleep(_REPORT_INTERVAL)
            self._broadcast(await self._report_message())

    def _broadcast(self, message: bytes | None) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()  # a slow page gets the newest report, not a backlog
            queue.put_nowait(message)

    def end(self) -> None:
        """End every stream: a server that shuts down would wait for them, then abort them with an error."""
        if self._ticker is not None:
            self._ticker.cancel()  # its next report would replace the end marker in the queues
        self._broadcast(None)

    async def _report_message(self) -> bytes:
        try:
            report = await self.report()
        except PabalError as error:
            body = msgspec.json.encode(bilingual("message", str(error)))
            return b"event: trouble\ndata: " + body + b"\n\n"
        return b"event: report\ndata: " + msgspec.json.encode(report) + b"\n\n"

    async def close(self) -> None:
        """Stop the ticker."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
            self._ticker = None

    # -- reporting -----------------------------------------------------------------------------------------

    def invalidate(self) -> None:
        """Discard cached reports, because an action has just changed something."""
        self._latest = self._groups = None

    async def report(self) -> dict[str, Any]:
        """Return the current state of everything; a report less than half a second old is reused."""
        async with self._report_lock:
            now = self._clock()
            if self._latest is not None and now - self._latest[0] < _REPORT_INTERVAL / 2:
                return self._latest[1]
            overview = await self._operations.overview()
            subscriptions = await self._operations.subscriptions()
            if self._operations.masking.mode != "full":
                overview, subscriptions = without_error_messages(overview, subscriptions)
            samples: list[Sample] = []
            if not overview.target.live:
                samples = await self._operations.latest_samples(_SAMPLES_TTL)
                subscriptions = [with_sample(view, samples) for view in subscriptions]
            groups = await self._recent_groups(now, overview.parked)
            snapshot = CounterSnapshot(
                now, overview.totals.head, {view.name: Counters.of(view) for view in subscriptions}
            )
            while self._snapshots and now - self._snapshots[0].at > _RATE_WINDOW:
                self._snapshots.popleft()
            rates = rates_between(self._snapshots[0] if self._snapshots else None, snapshot)
            self._snapshots.append(snapshot)
            if samples:
                rates = Rates(rates.published, {**rates.by_subscription, **sampled_rates(samples)})
            report = compose(overview, subscriptions, groups, rates)
            self._latest = (now, report)
            return report

    async def _recent_groups(self, now: float, parked: int) -> list[dict[str, Any]]:
        """Return the groups, counted again when the number of dead letters changes, or after two seconds.

        They are counted less often where counting is slow: on Redis all dead letters are read for it.
        """
        cached = self._groups
        if cached is None or (now >= cached[3] and (cached[1] != parked or now - cached[0] > _GROUPS_TTL)):
            groups = await self.dead_letter_groups() if parked else []
            counted_at = self._clock()
            self._groups = cached = (now, parked, groups, counted_at + _RECOUNT_FACTOR * (counted_at - now))
        return cached[2]

    async def dead_letter_groups(self) -> list[dict[str, Any]]:
        """Return the groups; the first ones include the message of their newest dead letter."""
        groups = [msgspec.structs.asdict(group) for group in await self._operations.dead_letter_groups()]
        for group in groups:
            group.update(bilingual("message", ""), event_types=())
        for group in groups[:_MAX_EXPLAINED_GROUPS]:
            try:
                letter = await self._operations.dead_letter(group["newest_id"])
            except DeadLetterNotFoundError:
                continue  # it has just been retried or discarded
            except CorruptDeadLetterError as error:
                group.update(preview("message", str(error)))
                continue
            group.update(failure_message(letter), event_types=(letter.event.event_type,))
        return groups

    async def series(self, name: str) -> dict[str, Any]:
        """Return the figures over one of the ``RANGES``. Raises Problem for another name."""
        if name not in RANGES:
            raise Problem(
                400, "range", f"range={name!r} is not one of {', '.join(RANGES)}", field="range", value=name
            )
        length, step = RANGES[name]
        last = int(time.time()) // step * step
        series = await self._operations.series(range(last - length, last + 1, step))
        return {"range": name, "step": step, "series": series}

    async def types(self) -> list[str]:
        """Return the names of event types in the log."""
        now = self._clock()
        if self._types is None or now - self._types[0] > _TYPES_TTL:
            self._types = (now, await self._operations.types())
        return self._types[1]
