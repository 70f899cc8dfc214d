"""A process's signs of life, and what follows when they have not been taken for too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from pabal.delivery.ending import end_tasks
from pabal.errors import PabalError


class SignsOfLife:
    """Know when the server last took a sign of life, give more beside the looks, and say when it is too late.

    Every look is one; what follows a look can take longer than the lease while handlers keep the loop busy.
    """

    def __init__(
        self,
        lease: float,
        pause: float,
        give: Callable[[], Awaitable[None]],
        too_late: Callable[[], Awaitable[None]],
    ) -> None:
        self._lease = lease
        self._pause = pause
        self._give = give
        self._too_late = too_late
        self._taken_at = 0.0
        """When the last one was given that the server is known to have taken (monotonic)."""
        self._counts = False
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to give signs beside the looks, and to watch how long ago the last one was."""
        self._taken_at = time.monotonic()
        self._counts = False
        self.tasks = [
            asyncio.create_task(self._go_on(), name="pabal-redis-signs"),
            asyncio.create_task(self._watch(), name="pabal-redis-guard"),
        ]

    async def stop(self) -> None:
        """Give no more."""
        await end_tasks(*self.tasks)

    def taken(self, given_at: float) -> None:
        """Note that the server has taken one that was given at a time (monotonic)."""
        self._taken_at = max(self._taken_at, given_at)
        self._counts = True

    def not_needed(self) -> None:
        """Note that this process owns nothing and is to own nothing, so nobody waits for its signs."""
        self._taken_at = time.monotonic()
        self._counts = False

    @property
    def is_overdue(self) -> bool:
        """Tell whether others may have taken this process's place."""
        return time.monotonic() - self._taken_at > self._lease

    async def _go_on(self) -> None:
        while True:
            if self.is_overdue or not self._counts:
                await asyncio.sleep(self._pause)  # only a look tells what is still this process's
                continue
            left = self._taken_at + self._lease / 3 - time.monotonic()
            if left > 0:
                await asyncio.sleep(left)
                continue
            given_at = time.monotonic()
            try:
                await self._give()
            except PabalError:
                await asyncio.sleep(self._pause)  # the next look reports what is wrong
            else:
                self.taken(given_at)

    async def _watch(self) -> None:
        """Beside the looks: one that waits for an answer in vain lasts longer than the lease."""
        while True:
            if self.is_overdue:
                await self._too_late()
            left = self._taken_at + self._lease - time.monotonic()
            await asyncio.sleep(left if left > 0 else self._pause)
