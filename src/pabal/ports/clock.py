"""Time as an argument, so that everything with delays runs under a virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class TimerHandle(Protocol):
    """Stand for one pending call."""

    def cancel(self) -> None:
        """Forget the call; harmless if it ran already."""


class Clock(Protocol):
    """Tell time and call back later. Only the loop that runs the bus uses it."""

    def time(self) -> float:
        """Return seconds since 1970; may step when the system clock is set."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never steps back."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> TimerHandle:
        """Call ``callback`` in the running loop after ``delay`` seconds (at once if not positive)."""
        ...
