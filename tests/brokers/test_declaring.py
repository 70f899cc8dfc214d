"""Subscriptions made while a bus runs get all events published after the call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.coordinator import Coordinator
from pabal.brokers.redis.declaring import Declarations
from pabal.brokers.redis.inspector import GroupInspector
from pabal.brokers.redis.membership import Membership, View
from pabal.brokers.redis.partition import PartitionStorage
from pabal.brokers.redis.reports import GroupRestored
from tests.brokers.events import Moved, Noted, moves, until
from tests.brokers.proxy import Proxy
from tests.brokers.server import Server
from tests.brokers.test_bus import make


def subscribe(bus: RedisEventBus, count: int) -> list[Noted]:
    """Make several subscriptions without yielding to the event loop in between."""
    noted = [Noted() for _ in range(count)]
    for number, each in enumerate(noted):
        bus.subscribe(Moved, each, name=f"sub-{number}")
    return noted


async def test_each_subscription_gets_what_is_published_after_it_was_made(
    shared_server: Server, namespace: str
) -> None:
    """Only the first would get all events; the others would begin at the head when their turn comes."""
    async with make(shared_server, namespace) as bus:
        noted = subscribe(bus, 6)
        await bus.publish_batch(moves(20, 40))
        await bus.drain(timeout=30)
        assert [sorted(each.numbers) for each in noted] == [list(range(40))] * 6


async def test_one_that_is_made_where_another_process_has_the_partitions_misses_nothing(
    shared_server: Server, namespace: str
) -> None:
    """It would begin when the other process learns of it, and skip the events published before."""

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
    """Publishing waits for the next connection, and so must declaring the subscriptions."""
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
    """In the other process it would begin at the head or raise ValueError, and lose unfinished events."""
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
        assert "it was forgotten while in use" in other.health().reasons[0]
        await other.subscriptions.reset("sub", 4)
        await other.drain(timeout=30)
        assert sorted(first.numbers + second.numbers) == list(range(8))
        assert other.health().status == "ok"


def halts(bus: RedisEventBus) -> list[str]:
    return [reason for reason in bus.health().reasons if "halted" in reason]


@pytest.mark.parametrize("restored", [True, False])
async def test_who_declares_first_after_a_flush_does_not_halt_who_was_there_before(
    own_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch, restored: bool
) -> None:
    """Promise 43. If a new process numbers subscriptions first, the old one would halt them as forgotten."""
    held, declared, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    turn, look = Coordinator._run_round, Membership.read_view

    async def turn_later(coordinator: Coordinator) -> None:
        if coordinator is one._coordinator and is_flushed:
            held.set()
            await (declared if restored else go_on).wait()
        await turn(coordinator)

    async def look_later(membership: Membership) -> View:
        if one._coordinator is not None and membership is not one._coordinator.membership:
            declared.set()
            await go_on.wait()
        return await look(membership)

    is_flushed = False
    one, two = make(own_server, namespace), make(own_server, namespace)
    noted = {name: Noted() for name in ("first", "second")}
    for bus, names in ((one, ("first", "second")), (two, ("second", "first"))):
        for name in names:
            bus.subscribe(Moved, noted[name], name=name)
    restorations: list[GroupRestored] = []
    one.listen(lambda report: restorations.append(report) if isinstance(report, GroupRestored) else None)
    monkeypatch.setattr(Coordinator, "_run_round", turn_later)
    async with one:
        await one.publish_batch(moves(20, 40))
        await one.drain(timeout=30)
        is_flushed = True
        await held.wait()
        await one._log.link.call("FLUSHALL")
        if restored:  # two has declared by then, and has taken no partition
            monkeypatch.setattr(Membership, "read_view", look_later)
            starting = asyncio.create_task(two.start())
            await until(lambda: bool(restorations))
            go_on.set()
            await starting
        else:
            await two.start()
            go_on.set()
        await until(lambda: len(one.partitions) == len(two.partitions) == 4)
        await one.publish_batch([Moved(f"k{number % 20}", number) for number in range(40, 80)])
        await one.drain(timeout=30)
        assert (halts(one), halts(two)) == ([], [])
        for name in noted:
            assert await one.subscriptions.pause(name)
            assert await one.subscriptions.resume(name)
        assert (halts(one), halts(two)) == ([], [])
        await two.stop()
        await until(lambda: len(one.partitions) == 8)
        assert halts(one) == []
    for each in noted.values():
        assert sorted(each.numbers) == list(range(80))


async def test_no_two_have_one_number_after_a_flush(
    own_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 6. Notes of attempts contain the number, so a death would count for another's event."""
    held, go_on = asyncio.Event(), asyncio.Event()
    turn = Coordinator._run_round

    async def turn_later(coordinator: Coordinator) -> None:
        if is_flushed:
            held.set()
            await go_on.wait()
        await turn(coordinator)

    is_flushed = False
    monkeypatch.setattr(Coordinator, "_run_round", turn_later)
    async with make(own_server, namespace, Noted(), partitions=1) as bus:
        bus.subscribe(Moved, Noted(), name="sub-2")
        await bus.drain(timeout=30)
        restored: list[GroupRestored] = []
        bus.listen(lambda report: restored.append(report) if isinstance(report, GroupRestored) else None)
        is_flushed = True
        await held.wait()
        await bus._log.link.call("FLUSHALL")
        newcomer = make(own_server, namespace, partitions=1).subscribe(Moved, Noted(), name="newcomer")
        await Declarations(bus._log, bus._keys, "g").declare(newcomer)
        go_on.set()
        await until(lambda: bool(restored))
        numbers = await bus._log.link.call("HVALS", bus._keys.names)
        assert len(set(numbers)) == len(numbers) == 3
