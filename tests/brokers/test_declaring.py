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
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.proxy import Proxy
from tests.brokers.server import Server
from tests.brokers.support import make_bus


def subscribe(bus: RedisEventBus, count: int) -> list[Recorder]:
    """Make several subscriptions without yielding to the event loop in between."""
    recorders = [Recorder() for _ in range(count)]
    for number, each in enumerate(recorders):
        bus.subscribe(Moved, each, name=f"sub-{number}")
    return recorders


async def test_subscriptions_made_together_each_receive_all_later_events(
    shared_server: Server, namespace: str
) -> None:
    """Only the first would get all events; the others would begin at the head at which they are declared."""
    async with make_bus(shared_server, namespace) as bus:
        recorders = subscribe(bus, 6)
        await bus.publish_batch(moves(20, 40))
        await bus.drain(timeout=30)
        assert [sorted(each.numbers) for each in recorders] == [list(range(40))] * 6


async def test_a_subscription_made_by_a_joining_process_misses_no_event(
    shared_server: Server, namespace: str
) -> None:
    """It would begin when the owner learns of it, and skip the events published before."""

    async def ignore(event: Moved) -> None: ...

    owner = make_bus(shared_server, namespace, ignore)
    async with owner:
        joining = make_bus(shared_server, namespace)
        async with joining:
            recorders = subscribe(joining, 3)
            await joining.publish_batch(moves(20, 40))
            for number, each in enumerate(recorders):
                owner.subscribe(Moved, each, name=f"sub-{number}")
            await joining.drain(timeout=30)
            assert [sorted(each.numbers) for each in recorders] == [list(range(40))] * 3


@pytest.mark.parametrize("count", [1, 3])
async def test_a_subscription_made_while_the_connection_breaks_misses_no_event(
    shared_server: Server, namespace: str, count: int
) -> None:
    """Publishing waits for the next connection, and so must declaring the subscriptions."""
    async with Proxy(shared_server.port) as proxy:
        bus = RedisEventBus(proxy.url, group="g", namespace=namespace, partitions=8)
        async with bus:
            recorders = subscribe(bus, count)
            proxy.cut()
            await bus.publish_batch(moves(20, 40))
            await bus.drain(timeout=30)
            assert [sorted(each.numbers) for each in recorders] == [list(range(40))] * count


@pytest.mark.parametrize("moment", ["_declare", "_take"])
async def test_a_subscription_forgotten_during_a_handover_halts_with_a_reason(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """In the new owner it would begin at the head or raise ValueError, and lose unfinished events."""
    step = getattr(PartitionStorage, moment)
    forgotten: list[bool] = []

    async def forget_first(storage: PartitionStorage, name: str, *more: Any) -> Any:
        if not forgotten:
            inspector = GroupInspector(shared_server.url, group="g", namespace=namespace)
            forgotten.append(await inspector.forget_subscription(name))
            await inspector.aclose()
        return await step(storage, name, *more)

    first, second = Recorder(), Recorder()
    one, two = (make_bus(shared_server, namespace, recorder, partitions=1) for recorder in (first, second))
    async with one, two:
        await until(lambda: bool(one.partitions or two.partitions))  # its lease may have been lost at once
        [holder] = [bus for bus in (one, two) if bus.partitions]
        [other] = [bus for bus in (one, two) if not bus.partitions]
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


def halt_reasons(bus: RedisEventBus) -> list[str]:
    return [reason for reason in bus.health().reasons if "halted" in reason]


@pytest.mark.parametrize("restored", [True, False], ids=["after the restoration", "before the restoration"])
async def test_a_new_process_that_declares_first_after_a_flush_halts_no_subscription(
    own_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch, restored: bool
) -> None:
    """Promise 43. If a new process numbered subscriptions first, the old one would halt them as forgotten."""
    blocked, declared, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    run_round, read_view = Coordinator._run_round, Membership.read_view

    async def delayed_run_round(coordinator: Coordinator) -> None:
        if coordinator is one._coordinator and is_flushed:
            blocked.set()
            await (declared if restored else go_on).wait()
        await run_round(coordinator)

    async def delayed_read_view(membership: Membership) -> View:
        if one._coordinator is not None and membership is not one._coordinator.membership:
            declared.set()
            await go_on.wait()
        return await read_view(membership)

    is_flushed = False
    one, two = make_bus(own_server, namespace), make_bus(own_server, namespace)
    recorders = {name: Recorder() for name in ("first", "second")}
    for bus, names in ((one, ("first", "second")), (two, ("second", "first"))):
        for name in names:
            bus.subscribe(Moved, recorders[name], name=name)
    restorations: list[GroupRestored] = []
    one.listen(lambda report: restorations.append(report) if isinstance(report, GroupRestored) else None)
    monkeypatch.setattr(Coordinator, "_run_round", delayed_run_round)
    async with one:
        await one.publish_batch(moves(20, 40))
        await one.drain(timeout=30)
        is_flushed = True
        await blocked.wait()
        await one._log.link.call("FLUSHALL")
        if restored:  # two has declared by then, and has taken no partition
            monkeypatch.setattr(Membership, "read_view", delayed_read_view)
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
        assert (halt_reasons(one), halt_reasons(two)) == ([], [])
        for name in recorders:
            assert await one.subscriptions.pause(name)
            assert await one.subscriptions.resume(name)
        assert (halt_reasons(one), halt_reasons(two)) == ([], [])
        await two.stop()
        await until(lambda: len(one.partitions) == 8)
        assert halt_reasons(one) == []
    for each in recorders.values():
        assert sorted(each.numbers) == list(range(80))


async def test_subscription_numbers_stay_unique_after_a_flush(
    own_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 6. Notes of attempts contain the number, so a death would count for another's event."""
    blocked, go_on = asyncio.Event(), asyncio.Event()
    run_round = Coordinator._run_round

    async def delayed_run_round(coordinator: Coordinator) -> None:
        if is_flushed:
            blocked.set()
            await go_on.wait()
        await run_round(coordinator)

    is_flushed = False
    monkeypatch.setattr(Coordinator, "_run_round", delayed_run_round)
    async with make_bus(own_server, namespace, Recorder(), partitions=1) as bus:
        bus.subscribe(Moved, Recorder(), name="sub-2")
        await bus.drain(timeout=30)
        restored: list[GroupRestored] = []
        bus.listen(lambda report: restored.append(report) if isinstance(report, GroupRestored) else None)
        is_flushed = True
        await blocked.wait()
        await bus._log.link.call("FLUSHALL")
        newcomer = make_bus(own_server, namespace, partitions=1).subscribe(Moved, Recorder(), name="newcomer")
        await Declarations(bus._log, bus._keys).declare(newcomer)
        go_on.set()
        await until(lambda: bool(restored))
        numbers = await bus._log.link.call("HVALS", bus._keys.names)
        assert len(set(numbers)) == len(numbers) == 3
