"""Backpressure on a bus without storage: publishers wait, in order, while too much is pending."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine


class Admission:
    """Make publishers wait while the bus is full, and let them go on in the order they came."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.room = 0
        """How many deliveries may be pending before publishers have to wait."""
        self.waiters: deque[asyncio.Future[None]] = deque()
        """Publishers that wait, the longest-waiting first."""
        self.admitted = 0
        """Publishers that were let in but have not resumed yet."""

    def admit(self, *, all_at_once: bool = False) -> None:
        """Let publishers go on once half of the room is free; with ``all_at_once``, as soon as any is.

        Waiting for half keeps publishers and workers from taking turns for every single event. A worker that
        has nothing to do passes ``all_at_once``.
        """
        free = self.room - self._engine.pending - self.admitted
        if free * 2 < self.room and not all_at_once:
            return
        while self.waiters and free > 0:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self.admitted += 1
                free -= 1

    def withdraw(self, waiter: asyncio.Future[None]) -> None:
        """Forget a publisher that gave up waiting; on a bus that stays full, these would pile up."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def release_all(self) -> None:
        """Let all publishers go on, so that each finds out that the bus has stopped."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
                self.admitted += 1
        self.waiters.clear()
