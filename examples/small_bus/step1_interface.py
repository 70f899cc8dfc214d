"""Step 1: what a bus is. A promise about two calls, and the smallest thing that keeps it.

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
    """Something that happened, to the thing named by ``key``."""

    key: str


@dataclass(frozen=True)
class OrderPlaced(Event):
    """A customer ordered ``quantity`` pieces; ``key`` is the order's number."""

    quantity: int


Handler = Callable[[Event], Awaitable[None]]


class EventBus(Protocol):
    """Everything a publisher and a handler need to know of each other: this, and no more."""

    def subscribe(self, event_type: type[Event], handler: Handler, name: str) -> None:
        """Call ``handler`` with every event of a type. The name says who it is; step 3 needs it."""
        ...

    async def publish(self, event: Event) -> None:
        """Bring an event to every handler that asked for its type."""
        ...


class DirectBus:
    """Keep a dictionary of callbacks, and call them where the publisher stands."""

    def __init__(self) -> None:
        self._handlers: defaultdict[type[Event], list[Handler]] = defaultdict(list)

    def subscribe(self, event_type: type[Event], handler: Handler, name: str) -> None:
        """See ``EventBus``."""
        self._handlers[event_type].append(handler)

    async def publish(self, event: Event) -> None:
        """See ``EventBus``. The publisher waits for every handler, and gets what they raise."""
        for handler in self._handlers[type(event)]:
            await handler(event)


async def main() -> None:
    """Publish one order to two handlers that know nothing of each other."""
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
