"""A server with full memory rejects appends, but the group can make progress, which frees memory."""

from __future__ import annotations

import asyncio

import pytest
from redis import Redis

from pabal.brokers.redis.keys import LogKeys
from pabal.errors import BrokerUnavailableError
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus, record_lost_partitions


def fill(server: Server, *, full: bool = True) -> None:
    """Limit a server's memory so that it is full, or remove the limit."""
    with Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "1" if full else "0")


async def test_a_group_on_a_full_server_handles_its_backlog_and_frees_memory(
    own_server: Server, namespace: str
) -> None:
    """Without saves and heartbeats, the group would lose its partitions and never free memory."""
    recorder, gate = Recorder(), asyncio.Event()

    async def handle(event: Moved) -> None:
        await gate.wait()
        await recorder.handle(event)

    async with make_bus(own_server, namespace, handle, keep=0, lease=0.6, patience=0.2) as bus:
        lost = record_lost_partitions(bus)
        await bus.publish_batch(moves(8, 400))
        fill(own_server)
        with pytest.raises(BrokerUnavailableError, match="maxmemory"):
            await bus.publish(Moved("k0", 400))
        gate.set()
        await bus.drain(timeout=30)
        with Redis.from_url(own_server.url) as client:
            logs = [LogKeys(namespace).log(partition) for partition in range(8)]
            await until(lambda: not any(map(client.xlen, logs)))
        assert lost == []
    assert sorted(recorder.numbers) == list(range(400))


async def test_a_process_can_join_a_full_server_while_a_scheduled_event_is_due(
    own_server: Server, namespace: str
) -> None:
    """After a restart, the process that would free memory must be able to start without it."""
    recorder = Recorder()
    async with make_bus(own_server, namespace) as publisher:
        await publisher.publish_batch(moves(8, 40))
        await publisher.publish(Moved("k0", 40), delay=0.3)
    await own_server.restart()
    fill(own_server)
    await asyncio.sleep(0.3)
    bus = make_bus(own_server, namespace, patience=0.2)
    bus.subscribe(Moved, recorder.handle, name="sub", start="beginning")
    async with bus:
        await until(lambda: len(recorder.numbers) == 40)
        fill(own_server, full=False)
        await until(lambda: len(recorder.numbers) == 41)
    assert sorted(recorder.numbers) == list(range(41))


async def test_a_group_registers_again_after_the_server_was_flushed(
    own_server: Server, namespace: str
) -> None:
    """Otherwise the doctor and the command line would not see the group, although its processes run."""
    async with make_bus(own_server, namespace, Recorder()):
        with Redis.from_url(own_server.url) as client:
            client.flushall()
            await until(lambda: bool(client.sismember(LogKeys(namespace).groups, "g")))
