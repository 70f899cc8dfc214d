"""The real clock, used outside of tests."""

from __future__ import annotations

import asyncio
import time as machine
from collections.abc import Callable

from pabal.ports.clock import TimerHandle


class SystemClock:
    """Read the machine's clocks and use the running loop's timers."""

    time = staticmethod(machine.time)
    monotonic = staticmethod(machine.monotonic)

    def call_later(self, delay: float, callback: Callable[[], None]) -> TimerHandle:
        """Call ``callback`` in the running loop after ``delay`` seconds."""
        return asyncio.get_running_loop().call_later(max(0.0, delay), callback)
