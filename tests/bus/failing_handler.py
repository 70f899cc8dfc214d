"""A handler whose events become dead letters, until it accepts them."""

from __future__ import annotations

import asyncio
from typing import Any

from pabal import BaseEventBus, DeadLetter, RetryPolicy
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import Backend, Recorder


class FailingHandler:
    """A handler that fails for every event until ``accepts`` is set, and waits for a ``gate`` if given."""

    def __init__(self) -> None:
        self.accepts = False
        self.handled: Recorder[Any] = Recorder()
        self.calls = 0
        self.gate: asyncio.Event | None = None

    async def handle(self, event: Any) -> None:
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        if not self.accepts:
            raise LookupError("no such order") if isinstance(event, Moved) else ValueError("unreadable")
        self.handled.add(event)


async def start_failing_bus(backend: Backend, **options: Any) -> tuple[BaseEventBus, FailingHandler]:
    """Start a bus with a failing handler, subscribed as "sub"."""
    bus = await backend.start_bus(**options)
    handler = FailingHandler()
    bus.subscribe((Moved, NoteTaken), handler, name="sub", retry=RetryPolicy(max_attempts=2, base_delay=0))
    return bus, handler


async def park_one(backend: Backend) -> tuple[BaseEventBus, FailingHandler, DeadLetter]:
    """Start a failing bus and publish ``Moved("rook", 1)``; return its dead letter, too."""
    bus, handler = await start_failing_bus(backend)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    return bus, handler, letter
