"""Time as an argument, so that everything with delays can run under a virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class TimerHandle(Protocol):
    """A pending call."""

    def cancel(self) -> None:
        """Cancel the call; harmless if it has already run."""


class Clock(Protocol):
    """Tell the time and call functions later. Only the loop that runs the bus uses it."""

    def time(self) -> float:
        """Return seconds since 1970; may jump when the system clock is set."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes backwards."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> TimerHandle:
        """Call ``callback`` in the running loop after ``delay`` seconds (at once if not positive)."""
        ...
