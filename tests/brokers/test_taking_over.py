"""Taking over the partitions of a dead process: interrupted takeovers, and new events afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import msgspec
import pytest

from pabal import DeliveryContext
from pabal.brokers.redis import RedisEventBus, tail
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.notes import Note
from pabal.brokers.redis.pages import Pages
from pabal.brokers.redis.reports import PartitionGivenUp
from pabal.brokers.redis.tail import Tail
from pabal.delivery.feed import Feed
from pabal.delivery.retry import RetryPolicy
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.proxy import Proxy
from tests.brokers.server import Server
from tests.brokers.support import make_bus, record_lost_partitions, stop_heartbeats
from tests.bus.support import spin_loop

RETRY = RetryPolicy(max_attempts=3, base_delay=0.01)


async def make_dead_owner(server: Server, namespace: str) -> RedisEventBus:
    """Return a bus in the state of a process that died in its first attempt at the only event.

    The attempt is noted on the server, as it is after an earlier death.
    """
    begun = asyncio.Event()

    async def hang(event: Moved) -> None:
        begun.set()
        await asyncio.Event().wait()

    bus = make_bus(server, namespace, partitions=1)
    bus.subscribe(Moved, hang, name="sub", retry=RETRY)
    await bus.start()
    await bus.publish(Moved("a", 1))
    await begun.wait()
    stop_heartbeats(bus)
    assert bus._coordinator is not None
    note = msgspec.msgpack.encode(Note(0, 1, 1, 1, 1))
    await bus._log.link.call("HSET", bus._keys.notes, f"{bus._coordinator.membership.member}\0000", note)
    return bus


class Attempts:
    """A handler that records the attempt number of each delivery."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    async def handle(self, event: Moved, context: DeliveryContext) -> None:
        self.numbers.append(context.attempt)


async def test_a_death_counts_as_an_attempt_if_the_connection_breaks_during_takeover(
    shared_server: Server, namespace: str
) -> None:
    """Promise 6. An event that kills its process would get one more attempt per broken connection."""
    dead = await make_dead_owner(shared_server, namespace)
    attempts = Attempts()
    async with Proxy(shared_server.port) as proxy:
        proxy.cut_at = dead._log.keys.part(0).encode() + b"\r\n$4\r\nhead"  # the first command after taking
        bus = RedisEventBus(proxy.url, group="g", namespace=namespace, partitions=1, lease=1.0)
        bus.subscribe(Moved, attempts.handle, name="sub", retry=RETRY)
        async with bus:
            await until(lambda: bool(attempts.numbers))
            assert proxy.cut_at is None
            [running] = bus._group_engine.running.values()
            assert running.storage.journal is not None  # so the next death counts, too: attempts are noted
            await bus.drain(timeout=30)
        await dead.stop(timeout=0)
    assert attempts.numbers == [2]


async def test_a_death_counts_as_an_attempt_if_the_successor_dies_during_takeover(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 6. The process that takes over next would look up the attempts of the wrong process."""
    dead = await make_dead_owner(shared_server, namespace)
    taken = asyncio.Event()

    async def die(*_: Any) -> None:
        taken.set()
        await asyncio.Event().wait()

    successor = make_bus(shared_server, namespace, Attempts().handle, partitions=1)
    await successor.start()
    assert successor._coordinator is not None
    monkeypatch.setattr(successor._coordinator, "_begin", die)
    await taken.wait()
    stop_heartbeats(successor)
    attempts = Attempts()
    bus = make_bus(shared_server, namespace, partitions=1)
    bus.subscribe(Moved, attempts.handle, name="sub", retry=RETRY)
    async with bus:
        await until(lambda: bool(attempts.numbers))
        await bus.drain(timeout=30)
    for one in (successor, dead):
        await one.stop(timeout=0)
    assert attempts.numbers == [2]


async def test_attempts_are_noted_again_after_a_server_restart(own_server: Server, namespace: str) -> None:
    """Promise 6. After a server restart, a deadly event would kill one process after another."""
    dead = await make_dead_owner(own_server, namespace)
    attempts = Attempts()
    async with make_bus(own_server, namespace, attempts.handle, partitions=1) as bus:
        await until(lambda: bool(attempts.numbers))
        assert bus._coordinator is not None
        line = bus._coordinator._note_connection

        def is_known_to_be_broken() -> bool:
            line.erase(7)  # a broken connection is noticed only when something is sent
            return line.is_broken

        await own_server.restart()
        await until(is_known_to_be_broken)
        await until(lambda: not line.is_broken)
        line.write(7, Note(0, 1, 1, 1, 1))
        field = bus._coordinator.membership.member + "\0007"
        async with asyncio.timeout(30.0):
            while not await bus._log.link.call("HEXISTS", bus._keys.notes, field):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    await dead.stop(timeout=0)


async def test_an_unreadable_note_does_not_prevent_a_takeover(shared_server: Server, namespace: str) -> None:
    """Promise 6. Every process of the group would try to take the partition, and fail, again and again."""
    dead = await make_dead_owner(shared_server, namespace)
    assert dead._coordinator is not None
    name = dead._coordinator.membership.member
    await dead._log.link.call("HSET", dead._keys.notes, f"{name}\0007", b"by hand")
    attempts = Attempts()
    async with make_bus(shared_server, namespace, attempts.handle, partitions=1) as bus:
        await until(lambda: bool(attempts.numbers))
        await bus.drain(timeout=30)
    await dead.stop(timeout=0)
    assert attempts.numbers == [2]


async def test_a_newly_followed_partition_is_heard_while_a_blocking_read_is_on_its_way(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 44. The read would be unblocked before it reaches the server, and would then block in full."""
    monkeypatch.setattr(tail, "_BLOCK_MS", 60_000)
    received: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    log = RedisLog(shared_server.url, namespace=namespace, partitions=2)
    await log.open()
    async with Proxy(shared_server.port) as proxy:
        tail_reader = Tail(
            proxy.url, log.link, log.keys.log, lambda *what: received.put_nowait(what), patience=30.0
        )
        try:
            await tail_reader.start()
            followed = [Pages(log, partition, lambda *_: None) for partition in range(2)]
            for pages in followed:
                await pages.follow()
            proxy.delay = 0.1
            tail_reader.follow(0, followed[0])
            await until(lambda: bool(tail_reader._waiting))
            tail_reader.follow(1, followed[1])
            await log.append([Moved("a", 1)], 1)
            async with asyncio.timeout(5.0):  # an uninterrupted call would block twelve times as long
                assert await received.get() == (1, 1)
        finally:
            await tail_reader.stop()
            await log.close()


async def test_busy_handlers_do_not_cost_a_process_its_new_partitions(
    shared_server: Server, namespace: str
) -> None:
    """Promise 44. With a backlog, a process would send no heartbeat until it has begun all partitions."""
    handled: list[int] = []

    async def handle(event: Moved) -> None:
        time.sleep(0.004)  # noqa: ASYNC251
        handled.append(event.number)

    async with make_bus(shared_server, namespace, partitions=32) as publisher:
        await publisher.publish_batch(moves(200, 800))
    bus = make_bus(shared_server, namespace, partitions=32, lease=0.9, worker_count=8)
    lost = record_lost_partitions(bus)
    bus.subscribe(Moved, handle, name="sub", start="beginning")
    async with bus:
        await bus.drain(timeout=60)
    assert sorted(handled) == list(range(800))
    assert not lost


async def test_heartbeats_continue_while_trimming_hangs(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 44. A busy process would count as dead, and its work would be done twice."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def handle(event: Moved) -> None: ...

    async def hang() -> None:
        reached.set()
        await go_on.wait()

    async with make_bus(shared_server, namespace, handle, lease=2.0) as bus:
        coordinator = bus._coordinator
        assert coordinator is not None
        monkeypatch.setattr(coordinator, "trim", hang)
        coordinator._trim_at = 0.0
        member = coordinator.membership.member

        async def heartbeat() -> int:
            return int(await bus._log.link.call("HGET", bus._keys.members, member))

        async with asyncio.timeout(30.0):
            await reached.wait()
            begun = await heartbeat()
            while await heartbeat() < begun + 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        go_on.set()


async def test_stop_finishes_handovers_that_are_under_way(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 44. Stopping would hand the same partitions over a second time, or fail."""
    reached, gate = asyncio.Event(), asyncio.Event()
    stops: Counter[Feed] = Counter()
    stopping: asyncio.Task[None] | None = None
    given_up: list[int] = []
    stop_feed = Feed.stop

    async def stop_slowly(feed: Feed) -> None:
        stops[feed] += 1
        if stopping is None:
            reached.set()
            await gate.wait()
        await stop_feed(feed)

    async def ignore(event: Moved) -> None: ...

    owner = make_bus(shared_server, namespace, ignore)
    owner.listen(
        lambda report: given_up.append(report.partition) if isinstance(report, PartitionGivenUp) else None
    )
    await owner.start()
    monkeypatch.setattr(Feed, "stop", stop_slowly)
    async with make_bus(shared_server, namespace, ignore) as joining:
        async with asyncio.timeout(30):
            await reached.wait()  # the owner hands partitions over to it
        stopping = asyncio.create_task(owner.stop())
        await until(lambda: len(given_up) == 4)  # the partitions that it still owns
        await spin_loop()
        gate.set()
        await stopping
        await until(lambda: len(joining.partitions) == 8)
    assert sorted(given_up) == list(range(8))
    assert set(stops.values()) == {1}


async def test_a_process_that_ends_its_last_subscription_hands_over_at_once(
    shared_server: Server, namespace: str
) -> None:
    """Nobody would handle its partitions for the length of the lease, and it would still list them."""
    one, two = Recorder(), Recorder()
    bus = make_bus(shared_server, namespace, lease=60.0)
    subscription = bus.subscribe(Moved, one, name="sub")
    async with bus, make_bus(shared_server, namespace, two, lease=60.0) as other:
        await until(lambda: len(bus.partitions) == len(other.partitions) == 4)
        lost = record_lost_partitions(bus)
        bus.unsubscribe(subscription)
        await until(lambda: (len(bus.partitions), len(other.partitions)) == (0, 8))
        await until(lambda: len(other.get_statistics()["members"]) == 1)
        await bus.publish_batch(moves(16, 32))
        await other.drain(timeout=30)
        assert sorted(two.numbers) == list(range(32))
        bus.subscribe(Moved, one, name="sub")
        await until(lambda: len(bus.partitions) == len(other.partitions) == 4)
        await bus.publish_batch(moves(16, 32))
        await bus.drain(timeout=30)
        assert sorted(one.numbers + two.numbers) == sorted([*range(32), *range(32)])
        assert not lost


async def test_the_handler_of_an_ended_subscription_is_waited_for_before_its_partition_is_handed_over(
    shared_server: Server, namespace: str
) -> None:
    """Promise 44. Another process would handle the event beside it, and its result would not be saved."""
    begun, gate = asyncio.Event(), asyncio.Event()
    one, two = Recorder(), Recorder()

    async def hold(event: Moved) -> None:
        begun.set()
        await gate.wait()
        await one.handle(event)

    bus = make_bus(shared_server, namespace, partitions=1, lease=60.0)
    subscription = bus.subscribe(Moved, hold, name="sub")
    async with bus:
        await bus.publish(Moved("a", 1))
        await begun.wait()
        handing_over = bus._group_engine.running[0]
        bus.unsubscribe(subscription)
        await until(lambda: handing_over.ending is not None)
        assert handing_over.ending is not None
        await asyncio.wait([handing_over.ending], timeout=0.2)  # it must not end, however long this waits
        assert bus.partitions == [0]
        async with make_bus(shared_server, namespace, two, partitions=1, lease=60.0) as other:
            gate.set()
            await until(lambda: other.partitions == [0])
            await other.publish(Moved("a", 2))
            await other.drain(timeout=30)
    assert (one.numbers, two.numbers) == ([1], [2])


async def test_a_partition_that_was_let_go_reaches_the_process_whose_share_it_is_by_now(
    shared_server: Server, namespace: str
) -> None:
    """Promise 44. Its lease would stay with the process that let it go, and nobody would handle it."""
    recorder = Recorder()
    async with (
        make_bus(shared_server, namespace, recorder, partitions=4, lease=30.0) as one,
        make_bus(shared_server, namespace, partitions=4) as publisher,
    ):
        coordinator = one._coordinator
        assert coordinator is not None
        stop_heartbeats(one)
        await coordinator._release_all()  # as after a suspension
        async with make_bus(shared_server, namespace, recorder, partitions=4, lease=30.0) as two:
            async with asyncio.timeout(10):
                while len(two.partitions) < 2:  # each round is one look of the first process at the group
                    await coordinator._run_round()
                    await asyncio.sleep(0.01)
            await publisher.publish_batch(moves(16, 32))
            await until(lambda: len(recorder.numbers) == 32)
