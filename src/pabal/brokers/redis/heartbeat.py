"""A process's heartbeats, and what happens when the server has received none for too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from pabal.delivery.shutdown import end_tasks
from pabal.errors import PabalError


class Heartbeat:
    """Send heartbeats regularly; call ``on_overdue`` when the last confirmed one is older than the lease.

    Every look of the coordinator is a heartbeat. More are needed between looks, because acting on a look can
    take longer than the lease while handlers keep the event loop busy.
    """

    def __init__(
        self,
        lease: float,
        pause: float,
        send: Callable[[], Awaitable[None]],
        on_overdue: Callable[[], Awaitable[None]],
    ) -> None:
        self._lease = lease
        self._pause = pause
        self._send = send
        self._on_overdue = on_overdue
        self._confirmed_at = 0.0
        """When the last heartbeat that the server has confirmed was sent (monotonic)."""
        self.is_active = False
        """Whether this process takes part in its group, so that heartbeats are needed."""
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start sending heartbeats between looks, and watching the age of the last one."""
        self._confirmed_at = time.monotonic()
        self.is_active = False
        self.tasks = [
            asyncio.create_task(self._send_regularly(), name="pabal-redis-heartbeat"),
            asyncio.create_task(self._watch(), name="pabal-redis-guard"),
        ]

    async def stop(self) -> None:
        """Stop sending and watching heartbeats."""
        await end_tasks(*self.tasks)

    def note_confirmed(self, sent_at: float) -> None:
        """Note that the server has confirmed a heartbeat sent at ``sent_at`` (monotonic)."""
        self._confirmed_at = max(self._confirmed_at, sent_at)
        self.is_active = True

    def suspend(self) -> None:
        """Note that this process owns no partitions and will not take any, so it needs no heartbeats."""
        self._confirmed_at = time.monotonic()
        self.is_active = False

    @property
    def is_overdue(self) -> bool:
        """Return whether other processes may have taken this one's partitions."""
        return time.monotonic() - self._confirmed_at > self._lease

    async def _send_regularly(self) -> None:
        while True:
            if self.is_overdue or not self.is_active:
                await asyncio.sleep(self._pause)  # only a look can tell which partitions we still own
                continue
            left = self._confirmed_at + self._lease / 3 - time.monotonic()
            if left > 0:
                await asyncio.sleep(left)
                continue
            sent_at = time.monotonic()
            try:
                await self._send()
            except PabalError:
                await asyncio.sleep(self._pause)  # the next look reports what is wrong
            else:
                self.note_confirmed(sent_at)

    async def _watch(self) -> None:
        """Watch independently of looks, because a look may wait for its answer longer than the lease."""
        while True:
            if self.is_overdue:
                await self._on_overdue()
            left = self._confirmed_at + self._lease - time.monotonic()
            await asyncio.sleep(left if left > 0 else self._pause)
