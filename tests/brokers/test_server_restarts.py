"""Restarts of the server: a new incarnation of the log, and the positions skipped between two of them."""

from __future__ import annotations

import asyncio

import pytest

from pabal.brokers.redis.doctor import examine_server
from pabal.brokers.redis.extent import measure_extents
from pabal.brokers.redis.scripts import script
from pabal.errors import BrokerUnavailableError, PartitionCountError
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.proxy import Proxy
from tests.brokers.server import Server
from tests.brokers.support import make_bus, make_bus_through


async def test_events_of_another_process_are_delivered_after_a_server_restart(
    own_server: Server, namespace: str
) -> None:
    """Promise 40. A group would handle nothing until its own process publishes, and yet seem healthy."""
    recorder = Recorder()
    async with (
        make_bus(own_server, namespace, recorder, lease=10.0) as bus,
        make_bus(own_server, namespace) as other,
    ):
        await other.publish_batch(moves(8, 40))
        await bus.drain(timeout=30)
        await own_server.restart()
        engines = bus._group_engine.engines()
        await until(lambda: all(engine.feed and engine.feed.head >= 2**32 for engine in engines))
        await until(lambda: all(engine.feed.is_caught_up(2**32) for engine in engines if engine.feed))
        running = bus._group_engine.running.values()
        assert all(one.storage.pages.follows for one in running)
        await until(lambda: not any(one.has_jumped for one in running))  # or every look measures them again
        await other.publish_batch([Moved(f"k{number % 8}", number) for number in range(40, 80)])
        await until(lambda: len(recorder.numbers) == 80)


async def test_a_partition_that_is_resumed_when_nothing_is_new_is_still_followed(
    shared_server: Server, namespace: str
) -> None:
    """Promise 40. Each next event of another process would wait for a heartbeat, for seconds."""
    recorder = Recorder()
    async with (
        make_bus(shared_server, namespace, recorder, lease=60.0) as bus,
        make_bus(shared_server, namespace) as other,
    ):
        await other.publish_batch(moves(8, 40))
        await bus.drain(timeout=30)
        assert bus._coordinator is not None
        await bus._coordinator.resume_partitions()
        assert all(one.storage.pages.follows for one in bus._group_engine.running.values())
        await other.publish_batch([Moved(f"k{number % 8}", number) for number in range(40, 80)])
        await until(lambda: len(recorder.numbers) == 80, 15.0)  # the next heartbeat is later


async def test_a_partition_is_read_on_after_the_connection_breaks_while_it_is_measured(
    own_server: Server, namespace: str
) -> None:
    """Promise 40. The partition being measured when the connection broke would never be read again."""
    recorder = Recorder()
    async with Proxy(own_server.port) as proxy:
        bus = make_bus_through(proxy, namespace, recorder, lease=10.0)
        async with bus, make_bus(own_server, namespace, partitions=4) as other:
            await other.publish_batch(moves(8, 40))
            await bus.drain(timeout=30)
            proxy.cut_at = b"EVALSHA\r\n$40\r\n" + script("known").sha.encode()
            await own_server.restart()
            await until(lambda: proxy.cut_at is None)
            engines = bus._group_engine.engines()
            await until(lambda: all(engine.feed and engine.feed.head >= 2**32 for engine in engines))
            await other.publish_batch([Moved(f"k{number % 8}", number) for number in range(40, 80)])
            await until(lambda: len(recorder.numbers) == 80)


async def test_finished_events_within_keep_survive_a_server_restart(
    own_server: Server, namespace: str
) -> None:
    """Promise 42. Each restart would delete all finished events, so that none could be replayed."""
    async with make_bus(own_server, namespace, Recorder(), partitions=1, lease=10.0, keep=10) as bus:
        for event in moves(1, 15):
            await bus.publish(event)
        await bus.drain(timeout=30)
        await own_server.restart()
        await bus.publish(Moved("a", 15))
        await bus.drain(timeout=30)
        assert bus._coordinator is not None
        await bus._coordinator.trim()
        left = await bus._log.read_entries(0, 0, 100)
        assert [entry.first for entry in left] == [*range(7, 16), 2**32 + 1]
        assert bus.get_statistics()["events_lost"] == 0


async def test_the_doctor_does_not_count_positions_skipped_at_a_restart(
    own_server: Server, namespace: str
) -> None:
    """After each restart of the server, a group would seem to be billions of positions behind."""
    async with make_bus(own_server, namespace, Recorder(), partitions=2):
        pass
    await own_server.restart()
    async with make_bus(own_server, namespace, partitions=2) as bus:
        await bus.publish_batch(moves(4, 20))
    findings = await examine_server(own_server.url, namespace)
    assert any("group 'g' is 20 positions behind" in finding.text for finding in findings)


async def test_trimming_removes_the_jump_fields_of_earlier_restarts(
    shared_server: Server, namespace: str
) -> None:
    """Promise 42. Each restart would leave a field in every partition, to be read in every round."""
    recorder = Recorder()
    number, lost = 0, 0
    for restart in range(6):
        async with make_bus(shared_server, namespace, recorder, partitions=2, lease=10.0, keep=4) as bus:
            if restart % 2:
                await bus.publish_batch([Moved(f"k{key}", number + key) for key in range(8)])
                number += 8
            await bus.drain(timeout=30)
            assert bus._coordinator is not None
            [before] = await bus._group_log.list_subscriptions()
            await bus._coordinator.trim()
            lost += bus.get_statistics()["events_lost"]
            [after] = await bus._group_log.list_subscriptions()
            assert (before.watermark, after.watermark) == (number, number)
            left = [entry for part in range(2) for entry in await bus._log.read_entries(part, 0, 100)]
            assert len({row.event_id for entry in left for row in entry.rows}) >= min(6, number)
            await bus._log.link.call("HSET", bus._log.keys.meta, "run", "another")  # as after a restart
    async with make_bus(shared_server, namespace, recorder, partitions=2, lease=10.0, keep=0) as bus:
        await bus.publish_batch([Moved(f"k{key}", number + key) for key in range(8)])
        await bus.drain(timeout=30)
        assert bus._coordinator is not None
        await bus._coordinator.trim()
        for part in range(2):
            fields = await bus._log.link.call("HKEYS", bus._log.keys.part(part))
            assert len([one for one in fields if one.startswith(b"jump:")]) == 1
        [after] = await bus._group_log.list_subscriptions()
        assert (after.watermark, lost, bus.get_statistics()["events_lost"]) == (number + 8, 0, 0)
    assert sorted(recorder.numbers) == list(range(number + 8))


@pytest.mark.parametrize("forgot", ["two events", "everything"])
async def test_positions_skipped_between_two_restarts_are_not_counted_as_events(
    shared_server: Server, namespace: str, forgot: str
) -> None:
    """Promise 42. The billions of positions between two incarnations would count as published."""
    async with make_bus(shared_server, namespace, partitions=1) as bus:
        log = bus._log
        part, base = log.keys.part(0), 2**32
        facts: dict[str, int] = {"head": 3 * base, f"jump:{3 * base}": 10}
        if forgot == "everything":
            facts[f"jump:{3 * base}"] = 0
        for name, value in facts.items():
            await log.link.call("HSET", part, name, value)
        await log.link.run(script("known"), (part,), 2 * base + 2)
        [extent] = await measure_extents(log.link, log.keys, [0])
        assert extent.count_assigned(0, extent.head) == facts[f"jump:{3 * base}"] + 2


async def test_a_log_recreated_with_another_partition_count_is_rejected(
    own_server: Server, namespace: str
) -> None:
    """Keys would move to other partitions, or publishers would wait without end for a connection."""
    bus = make_bus(own_server, namespace, partitions=None)
    await bus.start()
    await bus.publish(Moved("a", 1))
    call, keys = bus._log.link.call, bus._log.keys
    facts = ("partitions", 2, "incarnation", 0, "token", "0:other", "run", bus._log.run)
    await asyncio.gather(call("FLUSHALL"), call("HSET", keys.meta, *facts))
    with pytest.raises(PartitionCountError):
        await bus.publish(Moved("a", 2))
    assert bus._log.partitions == 16
    bus._log._patience = bus._log.link._patience = 0.1
    ended = call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
    await until(lambda: "16" in str(bus._log.link.trouble))
    assert ended.done()
    with pytest.raises(BrokerUnavailableError, match=r"another number of partitions \(2, not 16\)"):
        await bus.publish(Moved("a", 3))
    assert bus.health().status == "failing"
    await bus.stop(timeout=0)


async def test_a_server_restored_from_an_old_backup_continues_above_all_known_incarnations(
    shared_server: Server, namespace: str
) -> None:
    """Promise 43. Positions of the lost incarnations would be assigned again, and their events never read."""
    async with make_bus(shared_server, namespace, partitions=2) as bus:
        log, meta = bus._log, bus._log.keys.meta
        for _ in range(2):
            await log.link.call("HSET", meta, "run", "another")  # as after a restart
            await log.rejoin()
        assert log.incarnation == 2
        await log.link.call("HSET", meta, "incarnation", 0, "token", "0:old", "run", "another")
        await log.rejoin()
        assert log.incarnation == 3
        assert await log.heads([0, 1]) == [3 * 2**32] * 2


async def test_a_log_made_anew_by_another_process_continues_in_a_new_incarnation(
    shared_server: Server, namespace: str
) -> None:
    """Promise 43. A flushed log that a new process has made would assign the old positions once more."""
    async with make_bus(shared_server, namespace, partitions=2) as bus:
        log, meta = bus._log, bus._log.keys.meta
        await bus.publish_batch(moves(8, 20))
        await log.link.call("HSET", meta, "token", "0:another")  # as a process makes it that knew none
        await log.rejoin()
        assert log.incarnation == 1
        assert await log.heads([0, 1]) == [2**32] * 2
        token = log.token
        await log.rejoin()
        assert (log.incarnation, log.token) == (1, token)


BASE = 2**32


@pytest.mark.parametrize(
    ("facts", "known", "gaps"),
    [
        ({"jump:2": 10}, 12, [(13, 2 * BASE)]),
        ({"jump:2": 10}, 5, [(11, 2 * BASE)]),
        ({"jump:1": 10, "jump:2": BASE + 3}, BASE + 5, [(11, BASE), (BASE + 6, 2 * BASE)]),
        ({"jump:2": BASE + 3}, BASE + 5, [(BASE + 6, 2 * BASE)]),
        ({"jump:2": 10, "floor": 2 * BASE}, 12, [(11, 2 * BASE)]),
    ],
    ids=["more", "less", "an earlier jump", "no earlier jump", "a trimmed jump"],
)
async def test_a_process_corrects_only_the_jump_behind_the_position_that_it_knows(
    shared_server: Server, namespace: str, facts: dict[str, int], known: int, gaps: list[tuple[int, int]]
) -> None:
    """Promise 42. Positions never assigned would count as events, or events as never published."""
    async with make_bus(shared_server, namespace, partitions=1) as bus:
        log = bus._log
        part = log.keys.part(0)
        await log.link.call("HSET", part, "head", 2 * BASE + 7)
        for name, value in facts.items():
            name = name.replace(":1", f":{BASE}").replace(":2", f":{2 * BASE}")
            await log.link.call("HSET", part, name, value)
        await log.link.run(script("known"), (part,), known)
        [extent] = await measure_extents(log.link, log.keys, [0])
        assert list(extent.gaps) == gaps
