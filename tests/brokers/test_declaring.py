"""Subscriptions that are made while a bus runs: what is published after the call is theirs."""

from __future__ import annotations

from typing import Any

import pytest

from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.inspector import GroupInspector
from pabal.brokers.redis.partition import PartitionStorage
from tests.brokers.events import Moved, Noted, moves, until
from tests.brokers.proxy import Proxy
from tests.brokers.server import Server
from tests.brokers.test_bus import make


def subscribe(bus: RedisEventBus, count: int) -> list[Noted]:
    """Make subscriptions one after the other, without a moment between them."""
    noted = [Noted() for _ in range(count)]
    for number, each in enumerate(noted):
        bus.subscribe(Moved, each, name=f"sub-{number}")
    return noted


async def test_each_subscription_gets_what_is_published_after_it_was_made(
    shared_server: Server, namespace: str
) -> None:
    """The first of several got it; each of the others began where the log was when its turn had come."""
    async with make(shared_server, namespace) as bus:
        noted = subscribe(bus, 6)
        await bus.publish_batch(moves(20, 40))
        await bus.drain(timeout=30)
        assert [sorted(each.numbers) for each in noted] == [list(range(40))] * 6


async def test_one_that_is_made_where_another_process_has_the_partitions_misses_nothing(
    shared_server: Server, namespace: str
) -> None:
    """It began there when the other process heard of it, and what had been published by then was skipped."""

    async def ignore(event: Moved) -> None: ...

    owner = make(shared_server, namespace, ignore)
    async with owner:
        joining = make(shared_server, namespace)
        async with joining:
            noted = subscribe(joining, 3)
            await joining.publish_batch(moves(20, 40))
            for number, each in enumerate(noted):
                owner.subscribe(Moved, each, name=f"sub-{number}")
            await joining.drain(timeout=30)
            assert [sorted(each.numbers) for each in noted] == [list(range(40))] * 3


@pytest.mark.parametrize("count", [1, 3])
async def test_one_that_is_made_while_the_connection_breaks_misses_nothing(
    shared_server: Server, namespace: str, count: int
) -> None:
    """What is published waits for the next connection, and so must its subscriptions."""
    async with Proxy(shared_server.port) as proxy:
        bus = RedisEventBus(proxy.url, group="g", namespace=namespace, partitions=8)
        async with bus:
            noted = subscribe(bus, count)
            proxy.cut()
            await bus.publish_batch(moves(20, 40))
            await bus.drain(timeout=30)
            assert [sorted(each.numbers) for each in noted] == [list(range(40))] * count


@pytest.mark.parametrize("moment", ["_declare", "_take"])
async def test_one_that_is_forgotten_while_its_partition_changes_hands_halts_and_says_so(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """It began at the end in the other process, or ended there in ValueError: what was left was lost."""
    step = getattr(PartitionStorage, moment)
    forgotten: list[bool] = []

    async def forget_first(storage: PartitionStorage, name: str, *more: Any) -> Any:
        if not forgotten:
            inspector = GroupInspector(shared_server.url, group="g", namespace=namespace)
            forgotten.append(await inspector.forget_subscription(name))
            await inspector.aclose()
        return await step(storage, name, *more)

    first, second = Noted(), Noted()
    heir, owner = (make(shared_server, namespace, noted, partitions=1) for noted in (first, second))
    async with heir, owner:
        [holder] = [bus for bus in (heir, owner) if bus.partitions]
        [other] = [bus for bus in (heir, owner) if not bus.partitions]
        await holder.publish_batch(moves(4, 4))
        await holder.drain(timeout=30)
        await holder.subscriptions.pause("sub")
        await holder.publish_batch(moves(4, 8)[4:])
        monkeypatch.setattr(PartitionStorage, moment, forget_first)
        await holder.stop()
        await until(lambda: other.health().status == "failing")
        assert forgotten == [True]
        assert "somebody forgot it" in other.health().reasons[0]
        await other.subscriptions.reset("sub", 4)
        await other.drain(timeout=30)
        assert sorted(first.numbers + second.numbers) == list(range(8))
        assert other.health().status == "ok"
