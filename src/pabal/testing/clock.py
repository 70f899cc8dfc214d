"""A clock that stands still until a test advances it."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from itertools import count

from pabal.errors import UsageError

_LOOP_TURNS = 25
"""Turns of the event loop after each timer: enough for everything it triggers in memory to finish."""


class VirtualTimer:
    """A pending call of a virtual clock."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Cancel the call; harmless if it was made already."""
        self._callback = None

    def fire(self) -> bool:
        """Make the call unless it was cancelled; return whether it was made."""
        callback, self._callback = self._callback, None
        if callback is None:
            return False
        callback()
        return True


class VirtualClock:
    """A clock that moves only when ``advance`` is called; pass it to a bus as ``clock``.

    ``start`` is in seconds since 1970. All retries, delays, schedules and timeouts of that bus follow this
    clock, so tests need not sleep.

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
        """Return by how many seconds the clock was advanced in total."""
        return self._elapsed

    def call_later(self, delay: float, callback: Callable[[], None]) -> VirtualTimer:
        """Call ``callback`` once ``advance`` has moved the clock by ``delay`` seconds."""
        timer = VirtualTimer(callback)
        heapq.heappush(self._heap, (self._elapsed + max(0.0, delay), next(self._order), timer))
        return timer

    async def advance(self, seconds: float) -> None:
        """Move the clock by ``seconds``, making each call that becomes due at its exact time.

        After each call, the event loop runs for a few turns, so that timers set by its effects are included.
        Work in threads (a disk write, a sync handler) is not awaited: follow with ``bus.drain()`` or a
        condition. Raises UsageError for negative, infinite or undefined seconds.
        """
        if not 0 <= seconds < math.inf:
            raise UsageError(
                f"a virtual clock cannot advance by {seconds!r} seconds; time only moves forward"
            )
        end = self._elapsed + seconds
        await self.settle()
        while self._heap and self._heap[0][0] <= end:
            when, _, timer = heapq.heappop(self._heap)
            self._elapsed = max(self._elapsed, when)
            if timer.fire():
                await self.settle()
        # Another task may have advanced it further meanwhile.
        self._elapsed = max(self._elapsed, end)
        await self.settle()

    async def settle(self) -> None:
        """Run the event loop for a few turns, until everything that was ready has run."""
        for _ in range(_LOOP_TURNS):
            await asyncio.sleep(0)
