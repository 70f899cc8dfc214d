"""Backpressure: publishers wait, in order, while too much is under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Admission:
    """Make publishers wait while the bus is full, and let them go on in the order they came."""

    def __init__(self, count_taken: Callable[[], int]) -> None:
        self.count_taken = count_taken
        """Returns how much of the room is taken: pending deliveries, or with a log, uncommitted appends."""
        self.room = 0
        """How much may be taken before publishers have to wait."""
        self.waiters: deque[asyncio.Future[None]] = deque()
        """Publishers that wait, the longest-waiting first."""
        self.admitted = 0
        """Publishers that were let in but have not resumed yet."""

    @property
    def is_queued(self) -> bool:
        """Return whether publishers wait, or were let in but have yet to resume: others come after them."""
        return bool(self.waiters or self.admitted)

    async def wait(self, waiter: asyncio.Future[None]) -> None:
        """Wait until ``waiter`` is let in, which takes nothing yet."""
        self.waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._withdraw(waiter)
            else:
                self.admitted -= 1
                self.admit(all_at_once=True)  # pass on the place that was kept for this one
            raise
        self.admitted -= 1

    def admit(self, *, all_at_once: bool = False) -> None:
        """Let publishers go on once half of the room is free; with ``all_at_once``, as soon as any is.

        Waiting for half keeps publishers and workers from taking turns for every single event. A worker that
        has nothing to do passes ``all_at_once``.
        """
        free = self.room - self.count_taken() - self.admitted
        if free * 2 < self.room and not all_at_once:
            return
        while self.waiters and free > 0:
            waiter = self.waiters.popleft()
            if not waiter.done():
                self.let_in(waiter)
                free -= 1

    def let_in(self, waiter: asyncio.Future[None]) -> None:
        """Let one publisher go on."""
        waiter.set_result(None)
        self.admitted += 1

    def _withdraw(self, waiter: asyncio.Future[None]) -> None:
        """Forget a publisher that gave up waiting; on a bus that stays full, these would pile up."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def release_all(self) -> None:
        """Let all publishers go on, so that each finds out that the bus has stopped."""
        for waiter in self.waiters:
            if not waiter.done():
                self.let_in(waiter)
        self.waiters.clear()

    def discard_closed_loop(self) -> None:
        """Forget the publishers of an event loop that was closed; those that were let in never resume."""
        self.waiters.clear()
        self.admitted = 0
