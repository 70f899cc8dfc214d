"""Any number of pending calls behind a single timer of the clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from pabal.ports.clock import Clock, TimerHandle


class Timers:
    """Call functions when they are due, in order of time.

    Only one timer of the clock is set, for the earliest call; without pending calls there is none, so waiting
    costs nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._handle: TimerHandle | None = None
        self._armed_for = 0.0

    def __len__(self) -> int:
        """Return how many calls are pending."""
        return len(self._heap)

    def add(self, delay: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` after ``delay`` seconds; it must not raise."""
        when = self._clock.monotonic() + max(0.0, delay)
        heapq.heappush(self._heap, (when, next(self._order), callback))
        if self._handle is None or when < self._armed_for:
            self._arm()

    def clear(self) -> None:
        """Cancel all pending calls."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._heap:
            self._armed_for = self._heap[0][0]
            self._handle = self._clock.call_later(self._armed_for - self._clock.monotonic(), self._fire)

    def _fire(self) -> None:
        self._handle = None
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2]()
        self._arm()
