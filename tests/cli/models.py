"""A read model of the shop, and an application in its own process that runs it until its input ends."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from pabal import EventBusFactory
from pabal.errors import ProjectionError
from pabal.eventsourcing import Projection, ProjectionTransaction, projects
from tests.operations.conftest import ShopOrder


class Quantities(Projection):
    tables = "CREATE TABLE {quantities} (order_id TEXT PRIMARY KEY, quantity INTEGER NOT NULL)"

    @projects(ShopOrder)
    def _ordered(self, event: ShopOrder, tx: ProjectionTransaction) -> None:
        tx.execute("INSERT INTO {quantities} VALUES (?, ?)", (event.order_id, event.quantity))


class Slow(Quantities):
    """A later version of the model, so slow that its builder would give up."""

    name = "quantities"
    version = 2

    def __init__(self, storage: Any) -> None:
        super().__init__(storage, batch=10)

    @projects(ShopOrder)
    def _ordered(self, event: ShopOrder, tx: ProjectionTransaction) -> None:
        time.sleep(0.01)
        super()._ordered(event, tx)


class Failing(Quantities):
    name = "quantities"

    @projects(ShopOrder)
    def _ordered(self, event: ShopOrder, tx: ProjectionTransaction) -> None:
        raise ValueError("no such quantity")


class Demanding(Quantities):
    def __init__(self, storage: Any, service: object) -> None:
        super().__init__(storage)


async def main(path: str) -> None:
    """Print where the model stands; then publish an order for each line read, and print if it arrived."""
    async with EventBusFactory.create_default_event_bus(path, durability="normal") as bus:
        quantities = Quantities(bus)
        await quantities.start()
        print(f"running at {quantities.position}", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            receipt = await bus.publish(ShopOrder(line.strip(), 1))
            try:
                await quantities.reached(receipt, timeout=30)
                print(f"reached {receipt.position}", flush=True)
            except ProjectionError as error:
                print(error, flush=True)
        await quantities.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
