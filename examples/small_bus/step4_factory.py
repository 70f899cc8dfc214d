"""Step 4: a function that opens a bus by its URL, so that an application need not name a class.

Run it: ``python -m examples.small_bus.step4_factory``
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from examples.small_bus.step1_interface import Event, EventBus, OrderPlaced
from examples.small_bus.step2_worker_pool import PooledBus
from examples.small_bus.step3_storage import DurableBus, SqliteLog


class RunningBus(EventBus, Protocol):
    """The interface of step 1, with the methods that a bus with workers needs."""

    async def start(self) -> None:
        """Start delivering."""
        ...

    async def stop(self) -> None:
        """Stop delivering."""
        ...

    async def drain(self) -> None:
        """Return when everything published so far was handled."""
        ...


@asynccontextmanager
async def open_bus(url: str, event_types: list[type[Event]]) -> AsyncIterator[RunningBus]:
    """Open a bus by its URL, ``memory://`` or ``sqlite:///FILE``, and close it at the end.

    Subscribe inside the block, then call ``start``.
    """
    scheme, found, rest = url.partition("://")
    log: SqliteLog | None = None
    bus: RunningBus
    if scheme == "memory" and found:
        bus = PooledBus()
    elif scheme == "sqlite" and len(rest) > 1:
        log = SqliteLog(Path(rest[1:]))
        bus = DurableBus(log, event_types)
    else:
        raise ValueError(f"{url!r} names no bus; use memory:// or sqlite:///file.db")
    try:
        yield bus
    finally:
        await bus.stop()
        if log is not None:
            log.close()


async def main() -> None:
    """Run the same application on both kinds of bus."""
    with tempfile.TemporaryDirectory() as folder:
        for url in ("memory://", f"sqlite:///{folder}/orders.db"):
            async with open_bus(url, [OrderPlaced]) as bus:

                async def write_invoice(event: Event, url: str = url) -> None:
                    print(f"{url.partition(':')[0]}: invoice for {event.key}")

                bus.subscribe(OrderPlaced, write_invoice, name="ledger")
                await bus.start()
                await bus.publish(OrderPlaced("o-1", quantity=5))
                await bus.drain()


if __name__ == "__main__":
    asyncio.run(main())
