"""Who may publish on a bus without storage that is full: those who wait, in order, once there is room."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine


class Admission:
    """Let publishers wait for room, and let them in."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.room = 0
        """How many deliveries may be pending; more lets publishers wait."""
        self.waiters: deque[asyncio.Future[None]] = deque()
        """Publishers that wait for room."""
        self.admitted = 0
        """Publishers that were let in and have not resumed yet."""

    def let_in(self, *, all_at_once: bool = False) -> None:
        """Let publishers go on, once half of the room is free or nothing else is ready (``all_at_once``).

        Waiting for half keeps publishers and workers from taking turns for every single event.
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

    def left(self, waiter: asyncio.Future[None]) -> None:
        """Forget a publisher that waits no longer: with a bus that stays full, they would pile up."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def end(self) -> None:
        """Let everybody go on, to be told that the bus has stopped."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
                self.admitted += 1
        self.waiters.clear()
