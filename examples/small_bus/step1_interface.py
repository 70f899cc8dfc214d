"""Step 1: what a bus is. A protocol of two methods, and the smallest class that implements it.

Run it: ``python -m examples.small_bus.step1_interface``
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Event:
    """Something that happened to the thing identified by ``key``."""

    key: str


@dataclass(frozen=True)
class OrderPlaced(Event):
    """A customer ordered ``quantity`` pieces; ``key`` is the order number."""

    quantity: int


Handler = Callable[[Event], Awaitable[None]]


class EventBus(Protocol):
    """All that publishers and handlers need to know about each other."""

    def subscribe(self, event_type: type[Event], handler: Handler, name: str) -> None:
        """Call ``handler`` with every event of a type. ``name`` identifies the handler; step 3 needs it."""
        ...

    async def publish(self, event: Event) -> None:
        """Deliver an event to every handler that subscribed to its type."""
        ...


class DirectBus:
    """Keep the handlers in a dictionary, and call them from ``publish``."""

    def __init__(self) -> None:
        self._handlers: defaultdict[type[Event], list[Handler]] = defaultdict(list)

    def subscribe(self, event_type: type[Event], handler: Handler, name: str) -> None:
        """See ``EventBus``."""
        self._handlers[event_type].append(handler)

    async def publish(self, event: Event) -> None:
        """See ``EventBus``. The publisher waits for every handler, and gets their exceptions."""
        for handler in self._handlers[type(event)]:
            await handler(event)


async def main() -> None:
    """Publish one order to two handlers that know nothing about each other."""
    bus: EventBus = DirectBus()

    async def reserve_stock(event: Event) -> None:
        print(f"stock:  reserving for {event.key}")

    async def write_invoice(event: Event) -> None:
        print(f"ledger: invoice for {event.key}")

    bus.subscribe(OrderPlaced, reserve_stock, name="stock")
    bus.subscribe(OrderPlaced, write_invoice, name="ledger")
    await bus.publish(OrderPlaced("o-1", quantity=5))


if __name__ == "__main__":
    asyncio.run(main())
