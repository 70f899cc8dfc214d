"""Measure how fast a projection is being built, and estimate the time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

_WINDOW = 30.0
"""The rate is an average over this many seconds: long enough to be steady, short enough to stay current."""


class BuildProgress(NamedTuple):
    """Hold how far a build has come; the rate is None while it cannot be computed."""

    position: int
    head: int
    per_second: float | None

    @property
    def left(self) -> timedelta | None:
        """Return the estimated time to the log's end, in whole seconds."""
        if not self.per_second:
            return None
        return timedelta(seconds=round((self.head - self.position) / self.per_second))


class Pace:
    """Measure a build: call ``measure`` with each position and the log's head."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._measurements: deque[tuple[float, int]] = deque()

    def measure(self, position: int, head: int) -> BuildProgress:
        """Return how far the build has come, and its recent rate."""
        now = self._clock()
        self._measurements.append((now, position))
        while len(self._measurements) > 2 and now - self._measurements[1][0] >= _WINDOW:
            self._measurements.popleft()
        started_at, first = self._measurements[0]
        rate = (position - first) / (now - started_at) if now > started_at and position > first else None
        return BuildProgress(position, head, rate)
