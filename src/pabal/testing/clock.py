"""Time that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from itertools import count

from pabal.errors import UsageError

_TURNS = 25
"""Turns of the event loop after each timer: enough for what it set off to come to rest in memory."""


class VirtualTimer:
    """Stand for one pending call of a virtual clock."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the call."""
        self._callback = None

    def fire(self) -> bool:
        """Make the call unless it was cancelled; tell whether it was made."""
        callback, self._callback = self._callback, None
        if callback is None:
            return False
        callback()
        return True


class VirtualClock:
    """Tell a time that only ``advance`` moves; pass it to a bus as ``clock``.

    ``start`` is in seconds since 1970. Retries, delays, schedules and timeouts of that bus then go by this
    clock, and nothing has to sleep.

    >>> import asyncio
    >>> from pabal import DomainEvent, InMemoryEventBus
    >>> class AlarmRang(DomainEvent):
    ...     room: str
    >>> async def main() -> list[int]:
    ...     clock = VirtualClock()
    ...     rooms, seen = [], []
    ...     async def ring(event: AlarmRang) -> None:
    ...         rooms.append(event.room)
    ...     async with InMemoryEventBus(clock=clock) as bus:
    ...         bus.subscribe(AlarmRang, ring)
    ...         await bus.publish(AlarmRang("A1"), delay=60)
    ...         await clock.advance(59)
    ...         seen.append(len(rooms))
    ...         await clock.advance(1)
    ...         seen.append(len(rooms))
    ...     return seen
    >>> asyncio.run(main())
    [0, 1]
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start
        self._elapsed = 0.0
        self._heap: list[tuple[float, int, VirtualTimer]] = []
        self._order = count()

    def time(self) -> float:
        """Return the time, in seconds since 1970."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Return how many seconds it was advanced since it was made."""
        return self._elapsed

    def call_later(self, delay: float, callback: Callable[[], None]) -> VirtualTimer:
        """Call back when ``advance`` has moved the clock by ``delay`` seconds."""
        timer = VirtualTimer(callback)
        heapq.heappush(self._heap, (self._elapsed + max(0.0, delay), next(self._order), timer))
        return timer

    async def advance(self, seconds: float) -> None:
        """Move the clock by ``seconds``, making every call that falls due on the way at its very time.

        After each, the event loop turns a few times, so that timers set by what happened are seen. Work in
        threads (a disk write, a sync handler) is not waited for: follow with ``bus.drain()`` or a condition.
        Raises UsageError for seconds that lead back or nowhere.
        """
        if not 0 <= seconds < math.inf:
            raise UsageError(f"a virtual clock cannot advance by {seconds!r} seconds; time only goes on")
        end = self._elapsed + seconds
        await self.settle()
        while self._heap and self._heap[0][0] <= end:
            when, _, timer = heapq.heappop(self._heap)
            self._elapsed = max(self._elapsed, when)
            if timer.fire():
                await self.settle()
        # Somebody else may have moved it further meanwhile.
        self._elapsed = max(self._elapsed, end)
        await self.settle()

    async def settle(self) -> None:
        """Let the event loop turn until what is ready has run."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)
