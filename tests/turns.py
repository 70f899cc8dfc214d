"""Count the turns of the event loop: who keeps it to himself lets nobody else have one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pabal.delivery.shutdown import end_tasks


class Turns:
    """Say how many turns the loop has made."""

    count = 0


@asynccontextmanager
async def turns_counted() -> AsyncIterator[Turns]:
    """Count inside the block."""
    turns = Turns()

    async def go_on() -> None:
        while True:
            await asyncio.sleep(0)
            turns.count += 1

    counting = asyncio.create_task(go_on())
    try:
        yield turns
    finally:
        await end_tasks(counting)
