"""Count the iterations of the event loop: code that never yields leaves the count where it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pabal.delivery.shutdown import end_tasks


class LoopIterations:
    """How many iterations the loop has made."""

    count = 0


@asynccontextmanager
async def count_loop_iterations() -> AsyncIterator[LoopIterations]:
    """Count inside the block."""
    iterations = LoopIterations()

    async def count() -> None:
        while True:
            await asyncio.sleep(0)
            iterations.count += 1

    counting = asyncio.create_task(count())
    try:
        yield iterations
    finally:
        await end_tasks(counting)
