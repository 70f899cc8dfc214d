"""A running bus for a case, and a handler that fails on request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pabal.bus.in_memory import InMemoryEventBus
from pabal.delivery.retry import RetryPolicy
from pabal.testing.clock import VirtualClock
from pabal.testing.conformance.events import Audited, Deposited, Ticked

RETRY = RetryPolicy(max_attempts=3, base_delay=10.0, multiplier=1.0, jitter=0.0)


class Handler:
    """Record the events it handles; fail as often as ``failures`` says."""

    def __init__(self) -> None:
        self.handled: list[Any] = []
        self.attempts: list[int] = []
        self.failures: dict[int, int] = {}
        """How many more attempts fail, by the event's number."""

    async def handle(self, event: Any) -> None:
        """Handle an event."""
        self.attempts.append(event.number)
        left = self.failures.get(event.number, 0)
        if left:
            self.failures[event.number] = left - 1
            raise ValueError(f"no {event.number}")
        self.handled.append(event)

    def numbers(self, account: str | None = None) -> list[int]:
        """Return the numbers of the handled events, of one account or of all."""
        return [event.number for event in self.handled if account in (None, event.aggregate_id)]


@asynccontextmanager
async def running(
    storage: Any, handler: Any, clock: VirtualClock | None = None, **options: Any
) -> AsyncIterator[InMemoryEventBus]:
    """Run a bus with one subscription; stop it at the end without waiting for retries."""
    bus = InMemoryEventBus(storage, clock=clock or VirtualClock())
    options = {"name": "sub", "retry": RETRY, **options}
    bus.subscribe((Deposited, Audited, Ticked), handler, **options)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.stop()


async def settled(bus: InMemoryEventBus) -> None:
    """Wait until no delivery is left except those waiting for a retry."""
    await bus.drain(retries=False)
