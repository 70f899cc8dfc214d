"""A bus with one subscription, on a storage that lets a test act between call and answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from tests.bus.samples import Moved
from tests.bus.support import Seen
from tests.delivery.between import Between

from pabal import InMemoryEventBus, RetryPolicy
from pabal.testing import VirtualClock

LATER = RetryPolicy(max_attempts=3, base_delay=100.0, jitter=0.0)


class Clerk:
    """A handler that refuses the moves in ``refused``, and waits until ``gate`` is open."""

    def __init__(self) -> None:
        self.handled: Seen[Any] = Seen()
        self.entered: Seen[int] = Seen()
        self.refused: dict[int, Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.gated: Collection[str] = ("A", "B")

    async def handle(self, event: Any) -> None:
        self.entered.add(event.n)
        if event.piece in self.gated:
            await self.gate.wait()
        if event.n in self.refused:
            raise self.refused[event.n]
        self.handled.add(event)


class Desk:
    """A running bus on a ``Between`` storage, with a clerk as its handler."""

    def __init__(self) -> None:
        self.storage, self.clock, self.clerk = Between(), VirtualClock(), Clerk()
        self.bus = InMemoryEventBus(self.storage, clock=self.clock, worker_count=2, seed=7)

    def employ(self, **options: Any) -> Any:
        settings = {"name": "clerk", "retry": LATER, "on_exhausted": "park_key", **options}
        return self.bus.subscribe(Moved, self.clerk, **settings)

    async def pause(self) -> None:
        assert await self.bus.subscriptions.pause("clerk")

    async def resume(self) -> None:
        assert await self.bus.subscriptions.resume("clerk")

    async def publish(self, *numbers_: int, piece: str = "A") -> None:
        await self.bus.publish_batch([Moved(piece, n) for n in numbers_])

    async def rest(self) -> None:
        await self.bus.drain(timeout=None, retries=False)
