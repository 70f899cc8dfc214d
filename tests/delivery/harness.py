"""A bus with one subscription, on a storage that lets a test act between a call and its result."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from tests.bus.samples import Moved
from tests.bus.support import Recorder
from tests.delivery.intercepted_storage import InterceptedStorage

from pabal import InMemoryEventBus, RetryPolicy
from pabal.testing import VirtualClock

LATER = RetryPolicy(max_attempts=3, base_delay=100.0, jitter=0.0)


class GatedHandler:
    """A handler that raises the errors in ``failures``, by number, and waits until ``gate`` is open."""

    def __init__(self) -> None:
        self.handled: Recorder[Any] = Recorder()
        self.entered: Recorder[int] = Recorder()
        self.failures: dict[int, Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.gated: Collection[str] = ("A", "B")

    async def handle(self, event: Any) -> None:
        self.entered.add(event.n)
        if event.piece in self.gated:
            await self.gate.wait()
        if event.n in self.failures:
            raise self.failures[event.n]
        self.handled.add(event)


class Harness:
    """A running bus on an ``InterceptedStorage``, with a ``GatedHandler``."""

    def __init__(self) -> None:
        self.storage, self.clock, self.handler = InterceptedStorage(), VirtualClock(), GatedHandler()
        self.bus = InMemoryEventBus(self.storage, clock=self.clock, worker_count=2, seed=7)

    def subscribe(self, **options: Any) -> Any:
        settings = {"name": "sub", "retry": LATER, "on_exhausted": "park_key", **options}
        return self.bus.subscribe(Moved, self.handler, **settings)

    async def pause(self) -> None:
        assert await self.bus.subscriptions.pause("sub")

    async def resume(self) -> None:
        assert await self.bus.subscriptions.resume("sub")

    async def publish(self, *numbers_: int, piece: str = "A") -> None:
        await self.bus.publish_batch([Moved(piece, n) for n in numbers_])

    async def drain(self) -> None:
        await self.bus.drain(timeout=None, retries=False)
