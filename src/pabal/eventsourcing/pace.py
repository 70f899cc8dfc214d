"""How fast a projection is built, and how long that still takes, told from the positions it has come to."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

_WINDOW = 30.0
"""Seconds over which the rate is taken: long enough to be steady, short enough to follow the machine."""


class Measured(NamedTuple):
    """Say how far a build has come; the rate is None while there is nothing to tell it from."""

    position: int
    head: int
    per_second: float | None

    @property
    def left(self) -> timedelta | None:
        """Return how long it takes to the log's end, in whole seconds."""
        if not self.per_second:
            return None
        return timedelta(seconds=round((self.head - self.position) / self.per_second))


class Pace:
    """Measure a build: call it with each position, and the log's head."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def measure(self, position: int, head: int) -> Measured:
        """Return how far it has come, and how fast it was lately."""
        now = self._clock()
        self._seen.append((now, position))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _WINDOW:
            self._seen.popleft()
        begun, first = self._seen[0]
        rate = (position - first) / (now - begun) if now > begun and position > first else None
        return Measured(position, head, rate)
