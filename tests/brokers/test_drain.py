"""``drain`` and the partitions that other processes of the group handle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pabal.brokers.redis import RedisEventBus
from tests.brokers.events import Moved, moves, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus
from tests.brokers.test_subscription_reading import LATER


@asynccontextmanager
async def two_processes(
    server: Server, namespace: str, mine: Any, theirs: Any, **options: Any
) -> AsyncIterator[tuple[RedisEventBus, RedisEventBus]]:
    """Yield two buses, each with its own handler and one of two partitions."""
    one, two = (make_bus(server, namespace, partitions=2) for _ in range(2))
    one.subscribe(Moved, mine, name="sub", **options)
    two.subscribe(Moved, theirs, name="sub", **options)
    await one.start()
    await two.start()
    try:
        await until(lambda: len(one.partitions) == len(two.partitions) == 1)
        yield one, two
    finally:
        await one.stop()
        await two.stop()


async def test_drain_without_retries_waits_for_all_but_the_retries_of_another_process(
    shared_server: Server, namespace: str
) -> None:
    """Leaving ``async with bus`` would last until the retries of other processes, even for hours."""
    gate, handled = asyncio.Event(), []

    async def fail_first(event: Moved) -> None:
        if event.number < 8:
            raise ConnectionError("not now")
        handled.append(event.number)

    async def fail_first_or_wait(event: Moved) -> None:
        await fail_first(event)
        await gate.wait()

    async with two_processes(shared_server, namespace, fail_first, fail_first_or_wait, retry=LATER) as (
        one,
        _,
    ):
        # Each key has one event that fails, and one that waits behind it.
        await one.publish_batch(moves(8, 16))
        await one.drain(timeout=30, retries=False)
        assert not handled
        await one.publish_batch([Moved(f"other-{number}", number) for number in range(16, 24)])
        draining = asyncio.ensure_future(one.drain(timeout=30, retries=False))
        await asyncio.wait([draining], timeout=0.3)
        assert not draining.done()
        gate.set()
        await draining
        assert sorted(handled) == list(range(16, 24))


@pytest.mark.parametrize("retries", [True, False])
async def test_drain_does_not_wait_for_a_subscription_that_halted_in_another_process(
    shared_server: Server, namespace: str, retries: bool
) -> None:
    """Leaving ``async with bus`` would last until an operator resumes the subscription."""

    async def fail(event: Moved) -> None:
        raise ValueError("no")

    async with two_processes(
        shared_server, namespace, lambda event: None, fail, retry_count=0, on_exhausted="stop"
    ) as (one, two):
        await one.publish_batch(moves(8, 8))
        await until(lambda: two.health().status == "failing")
        await one.drain(timeout=30, retries=retries)
        await two.drain(timeout=30, retries=retries)
