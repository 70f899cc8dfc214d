"""Publish a tape on the bus, never far ahead of the slowest subscription."""

from __future__ import annotations

import asyncio
from time import monotonic

from pabal import EventBus
from pabal.demo.meter import Meter
from pabal.demo.tape import Tape

BATCH = 256
READ_AHEAD = 512
"""The feed waits while the slowest subscription has this many unfinished events or more."""

_BATCHES_PER_SECOND = 50
_POLL_INTERVAL = 0.02


class Feed:
    """Publish the events of a tape in order, in batches that are stored whole or not at all.

    The number of events in the log therefore tells where to continue after a crash. ``speed`` is in events
    per second; None means as fast as the slowest subscription allows.
    """

    def __init__(self, tape: Tape, run: str, bus: EventBus, meter: Meter, speed: float | None) -> None:
        self._tape = tape
        self._run = run
        self._bus = bus
        self._meter = meter
        self._speed = speed
        self.published = 0

    async def play(self, after: int) -> None:
        """Publish everything after the first ``after`` events."""
        self.published = after
        began = monotonic()
        size = BATCH
        if self._speed is not None:
            size = max(1, min(BATCH, round(self._speed / _BATCHES_PER_SECOND)))
        while self.published < self._tape.length:
            await self._wait_for_room()
            upto = min(self.published + size, self._tape.length)
            numbers = range(self.published + 1, upto + 1)
            await self._bus.publish_batch([self._tape.event(number, self._run) for number in numbers])
            self.published = upto
            if self._speed is not None:
                ahead = (upto - after) / self._speed - (monotonic() - began)
                await asyncio.sleep(max(0.0, ahead))

    async def _wait_for_room(self) -> None:
        """Wait until the slowest subscription has caught up enough."""
        while self._largest_lag() >= READ_AHEAD:
            self._meter.pulse.clear()
            try:
                # Time out regularly: the lag also shrinks without a pulse when a subscription skips events.
                # (Not ``wait_for``: in Python 3.11 it may swallow a cancellation that coincides with the
                # pulse.)
                async with asyncio.timeout(_POLL_INTERVAL):
                    await self._meter.pulse.wait()
            except TimeoutError:
                continue

    def _largest_lag(self) -> int:
        figures = self._bus.get_statistics()["subscriptions"].values()
        return max((one["lag"] or 0 for one in figures), default=0)
