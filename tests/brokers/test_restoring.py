"""Restoring what the server has forgotten, from the memory of the process that handles a partition."""

from __future__ import annotations

import pytest

from tests.brokers.events import Recorder, moves
from tests.brokers.server import Server
from tests.brokers.support import dump_namespace, make_bus, stop_heartbeats


@pytest.mark.parametrize("owner", ["another", ""], ids=["taken", "taken and given back"])
async def test_a_partition_that_another_process_has_taken_meanwhile_is_not_restored(
    shared_server: Server, namespace: str, owner: str
) -> None:
    """Promise 44. What the other process has finished would be overwritten, and handled once more."""
    async with make_bus(shared_server, namespace, Recorder(), partitions=1, lease=30.0) as bus:
        await bus.publish_batch(moves(4, 8))
        await bus.drain(timeout=30)
        [running] = bus._group_engine.running.values()
        consumers = list(running.engine.consumers.values())
        lease = bus._keys.of(0).lease
        stop_heartbeats(bus)  # its next look would act on the lease that is changed here
        await bus._log.link.call("HSET", lease, "owner", owner, "epoch", 9)
        before = await dump_namespace(shared_server, namespace)
        assert not await running.storage.restore(running.epoch, consumers)
        after = await dump_namespace(shared_server, namespace)
        assert after == before
        await bus._log.link.call("HSET", lease, "owner", running.storage._owner, "epoch", running.epoch)


async def test_a_restored_subscription_holds_back_trimming_again(
    shared_server: Server, namespace: str
) -> None:
    """Promise 42. Until it next finishes an event, its events would be trimmed unhandled."""
    async with make_bus(shared_server, namespace, Recorder(), partitions=1, lease=30.0) as bus:
        await bus.publish_batch(moves(4, 8))
        await bus.drain(timeout=30)
        [running] = bus._group_engine.running.values()
        stop_heartbeats(bus)
        marks, lease = bus._log.keys.marks(0), bus._keys.of(0).lease
        before = await bus._log.link.call("ZRANGE", marks, 0, -1, "WITHSCORES")
        await bus._log.link.call("DEL", marks, lease)
        assert await running.storage.restore(running.epoch, list(running.engine.consumers.values()))
        assert before == await bus._log.link.call("ZRANGE", marks, 0, -1, "WITHSCORES") != []
