"""An application in its own process: it publishes orders ``first`` to ``last`` into a file, and ends."""

from __future__ import annotations

import asyncio
import sys

from pabal import EventBusFactory
from tests.operations.conftest import ShopOrder


async def main(path: str, first: int, last: int) -> None:
    async with EventBusFactory.create_default_event_bus(path, durability="normal") as bus:
        for number in range(first, last + 1):
            await bus.publish(ShopOrder(f"o-{number}", number))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
