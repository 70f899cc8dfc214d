"""Networks that break, are slow or fail silently, and processes that are suspended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.membership import Lease, Membership, View, make_plan
from pabal.brokers.redis.reports import ConnectionLost, PartitionLost
from pabal.brokers.redis.scripts import script
from pabal.errors import BrokerUnavailableError
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.proxy import Proxy
from tests.brokers.server import Server, redis_binary
from tests.brokers.support import make_bus, make_bus_through


async def test_repeated_disconnects_lose_and_duplicate_nothing(shared_server: Server, namespace: str) -> None:
    """An interrupted append could be lost, or be repeated and stored twice."""
    recorder = Recorder()
    reports: list[Any] = []
    async with Proxy(shared_server.port) as proxy:
        bus = make_bus_through(proxy, namespace, recorder)
        bus.listen(reports.append)
        async with bus:
            publishing = asyncio.gather(*(_publish(bus, publisher) for publisher in range(20)))
            for cut in range(1, 4):
                await until(lambda cut=cut: len(recorder.numbers) >= 50 * cut or publishing.done())  # type: ignore[misc]
                proxy.cut()
            await publishing
            await bus.drain(timeout=60)
    for publisher in range(20):
        assert recorder.distinct_numbers(f"p{publisher}") == list(range(20))
    assert any(isinstance(report, ConnectionLost) for report in reports)


async def _publish(bus: RedisEventBus, publisher: int) -> None:
    for number in range(20):
        await bus.publish(Moved(f"p{publisher}", number))


async def test_a_disconnected_process_loses_its_partitions_to_another(
    shared_server: Server, namespace: str
) -> None:
    """Promise 41. The disconnected process and its successor would handle a key at the same time."""
    left, right = Recorder(), Recorder()
    reports: list[Any] = []
    async with Proxy(shared_server.port) as proxy:
        cut_off = make_bus_through(proxy, namespace, left, lease=0.5)
        cut_off.listen(reports.append)
        await cut_off.start()
        async with make_bus(shared_server, namespace, right, partitions=4, lease=0.5) as other:
            await until(lambda: len(other.partitions) == 2)
            proxy.swallow = True
            await until(lambda: len(other.partitions) == 4)
            await until(lambda: cut_off.partitions == [])
            await other.publish_batch(moves(8, 40))
            await other.drain(timeout=30)
            assert sorted(right.numbers) == list(range(40))
            assert left.numbers == []
            proxy.swallow = False
            proxy.cut()
            await until(lambda: len(cut_off.partitions) == len(other.partitions) == 2)
        assert any(isinstance(report, PartitionLost) for report in reports)
        await cut_off.stop()


async def test_a_slow_network_only_delays_delivery(shared_server: Server, namespace: str) -> None:
    """A long round trip would be taken for a dead server."""
    recorder = Recorder()
    async with Proxy(shared_server.port) as proxy, make_bus_through(proxy, namespace, recorder) as bus:
        proxy.delay = 0.05
        await bus.publish_batch(moves(4, 20))
        await bus.drain(timeout=60)
        assert bus.health().status == "ok"
    assert sorted(recorder.numbers) == list(range(20))


async def test_a_suspended_process_loses_its_partitions_and_notices(
    shared_server: Server, namespace: str
) -> None:
    """Promise 41. Once it resumes, it would handle partitions that another process has taken over."""
    code = f"""
import asyncio
from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.reports import PartitionLost
from tests.brokers.events import Moved
async def main():
    bus = RedisEventBus({shared_server.url!r}, group="g", namespace={namespace!r}, partitions=4, lease=0.5)
    lost = []
    bus.listen(lambda report: lost.append(report) if isinstance(report, PartitionLost) else None)
    async def handle(event): print("handled", event.number, flush=True)
    bus.subscribe(Moved, handle, name="sub", start="beginning")
    await bus.start()
    print("ready", flush=True)
    while not lost:
        await asyncio.sleep(0.01)
    print("lost", flush=True)
    await bus.stop()
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE, cwd=os.getcwd()
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGSTOP)
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder, partitions=4, lease=0.5) as bus:
        await until(lambda: len(bus.partitions) == 4)
        await bus.publish_batch(moves(8, 40))
        await bus.drain(timeout=30)
        process.send_signal(signal.SIGCONT)
        output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert output == b"lost\n"
    assert sorted(recorder.numbers) == list(range(40))


@pytest.mark.parametrize("name", ["enter", "survey", "take"])
async def test_start_waits_for_a_server_that_goes_away_meanwhile(
    shared_server: Server, namespace: str, name: str
) -> None:
    """A process started while the server restarts would end at once, and not after its patience."""
    recorder = Recorder()
    async with (
        Proxy(shared_server.port) as proxy,
        make_bus(shared_server, namespace, partitions=4) as publisher,
    ):
        proxy.cut_at = b"EVALSHA\r\n$40\r\n" + script(name).sha.encode()
        async with make_bus_through(proxy, namespace, recorder) as bus:
            assert proxy.cut_at is None
            assert len(bus.partitions) == 4
            await publisher.publish_batch(moves(8, 16))
            await until(lambda: len(recorder.numbers) == 16)
        proxy.cut_at = b"EVALSHA\r\n$40\r\n" + script(name).sha.encode()
        with pytest.raises(BrokerUnavailableError):
            await make_bus_through(proxy, namespace, recorder, when_disconnected="fail").start()


async def test_a_clock_jump_costs_a_process_no_partition(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Correcting a machine's clock by an hour would release all its partitions."""
    now = [1_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    recorder = Recorder()
    async with (
        make_bus(shared_server, namespace, recorder) as one,
        make_bus(shared_server, namespace, recorder) as two,
    ):
        await until(lambda: len(one.partitions) == len(two.partitions) == 4)
        before = one.partitions
        for jump in (3600.0, -7200.0):
            now[0] += jump
            assert one._coordinator is not None
            seen = one._coordinator.view
            await until(lambda seen=seen: one._coordinator.view is not seen)  # type: ignore[misc]
        assert one.partitions == before
        await one.publish_batch(moves(8, 20))
        await one.drain(timeout=30)
    assert sorted(recorder.numbers) == list(range(20))


def test_make_plan_balances_the_partitions_of_a_single_owner() -> None:
    """Some processes would be idle, or two would pass a partition back and forth."""
    for members in range(1, 8):
        names = [f"m{number}" for number in range(members)]
        owners = ["m0"] * 16
        for round_number in range(20):
            for name in names:
                view = View(True, None, 0, tuple(names), (), tuple(Lease(owner, 1) for owner in owners))
                mine = {part for part, owner in enumerate(owners) if owner == name}
                plan = make_plan(name, view, mine)
                assert round_number < 19 or not (plan.give or plan.take), "the distribution must settle"
                for part in plan.give:
                    owners[part] = ""
                for part, taken_from in plan.take:
                    assert owners[part] == taken_from
                    owners[part] = name
        counts = [owners.count(name) for name in names]
        assert sum(counts) == 16
        assert max(counts) - min(counts) <= 1


async def test_a_process_counts_as_dead_when_its_heartbeats_stop(
    shared_server: Server, namespace: str
) -> None:
    """A process would be declared dead at another's first round, or never."""
    async with make_bus(shared_server, namespace) as bus:
        one = Membership(bus._log, bus._keys, "one", lease=0.2)
        two = Membership(bus._log, bus._keys, "two", lease=0.2)
        await one.read_view()
        assert (await two.read_view()).living == ("one", "two")
        await asyncio.sleep(0.3)
        view = await two.read_view()
        assert (view.living, view.dead) == (("two",), ("one",))
        await one.read_view()
        assert (await two.read_view()).living == ("one", "two")


@pytest.mark.redis
@pytest.mark.parametrize("binary", ["valkey", "redis"])
async def test_ten_thousand_acknowledged_events_survive_server_restarts(binary: str, namespace: str) -> None:
    """Promise 40, with a restart after a third and a half of 10,000 events from 100 publishers."""
    path = redis_binary() if binary == "redis" else None
    if binary == "redis" and path is None:
        pytest.fail("no redis-server on PATH; install it, or leave this one out with -k valkey")
    server = Server(path)
    server.start()
    recorder = Recorder()
    try:
        async with make_bus(server, namespace, recorder, patience=120.0, lease=5.0) as bus:

            async def publish(publisher: int) -> None:
                for number in range(100):
                    await bus.publish(Moved(f"p{publisher}", number))

            publishing = asyncio.gather(*(publish(publisher) for publisher in range(100)))
            for count in (3333, 5000):
                await until(lambda count=count: len(recorder.numbers) >= count, 120.0)  # type: ignore[misc]
                await server.restart()
            await publishing
            await bus.drain(timeout=120)
        for publisher in range(100):
            assert recorder.distinct_numbers(f"p{publisher}") == list(range(100))
    finally:
        server.remove()
