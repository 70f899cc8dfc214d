"""``drain`` and the partitions that other processes of the group handle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pabal.brokers.redis import RedisEventBus
from pabal.errors import NotRetryableError
from pabal.ports.telemetry import Report, SubscriptionHalted
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


async def test_drain_waits_for_a_handler_of_a_halted_subscription_whose_partition_is_handed_over(
    shared_server: Server, namespace: str
) -> None:
    """The program would go on, and could close what the handler uses, while the handler still runs."""
    gates: dict[str, asyncio.Event] = {}
    doomed: set[str] = set()

    async def handle(event: Moved) -> None:
        if event.key in doomed:
            raise NotRetryableError("no")
        await gates[event.key].wait()

    async with (
        make_bus(shared_server, namespace, partitions=2, worker_count=4) as one,
        make_bus(shared_server, namespace, partitions=2) as two,
    ):
        receipts = [(f"k{number}", await one.publish(Moved(f"k{number}", number))) for number in range(16)]
        by_partition: dict[int, list[str]] = {0: [], 1: []}
        for key, receipt in receipts:
            assert receipt.position is not None
            by_partition[one._log.place_of(receipt.position)[0]].append(key)
        gates |= {key: asyncio.Event() for key, _ in receipts}
        doomed |= {keys[1] for keys in by_partition.values()}
        halted: list[Report] = []
        one.listen(lambda report: halted.append(report) if isinstance(report, SubscriptionHalted) else None)
        one.subscribe(Moved, handle, name="sub", on_exhausted="stop")
        await until(lambda: len(one.partitions) == 2)
        await one.publish_batch([Moved(key, 1) for keys in by_partition.values() for key in keys[:2]])
        await until(lambda: len(halted) == 2)
        two.subscribe(Moved, handle, name="sub", on_exhausted="stop")
        running = one._group_engine.running
        await until(lambda: any(part.ending is not None for part in running.values()))
        [given] = [number for number, part in running.items() if part.ending is not None]
        gates[by_partition[1 - given][0]].set()
        draining = asyncio.ensure_future(one.drain(timeout=30))
        await asyncio.wait([draining], timeout=0.3)
        assert not draining.done()
        gates[by_partition[given][0]].set()
        await draining
