"""Misuse of a bus on a server is rejected at once, and the error names what is wrong."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest

from pabal import SqliteEventStorage
from pabal.brokers.redis import RedisEventBus, relay
from pabal.brokers.redis.coordinator import Coordinator
from pabal.brokers.redis.doctor import examine_server
from pabal.brokers.redis.inspector import GroupInspector
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.partition import PartitionStorage
from pabal.brokers.redis.wire import decode_entry
from pabal.dashboard.report import without_error_messages
from pabal.delivery.retry import RetryPolicy
from pabal.domain.envelope import encode_event
from pabal.errors import (
    CorruptLogError,
    InsideHandlerError,
    StorageClosedError,
    SubscriptionError,
    UsageError,
    WrongLoopError,
)
from pabal.korean import in_korean
from pabal.operations import operations_of
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": ""}, "group is ''"),
        ({"group": "a{b}"}, "without braces"),
        ({"namespace": "x" * 201}, "namespace is"),
        ({"group": "risk\ud800"}, "group is .* lone surrogate"),
        ({"namespace": "\ud800"}, "namespace is .* lone surrogate"),
        ({"partitions": 0}, "partitions is 0"),
        ({"partitions": True}, "partitions is True"),
        ({"partitions": 2000}, "from 1 to 1024"),
        ({"lease": 0}, "lease is 0"),
        ({"patience": "long"}, "patience is 'long'"),
        ({"when_disconnected": "cry"}, "use 'wait' or 'fail'"),
        ({"keep": -1}, "keep is -1"),
        ({"keep": 1.5}, "keep is 1.5"),
    ],
)
def test_invalid_options_are_rejected_before_connecting(options: dict[str, Any], message: str) -> None:
    """Otherwise the mistake would end up in a key on the server that all processes of the group share."""
    with pytest.raises(UsageError, match=message):
        RedisEventBus("redis://127.0.0.1:1/0", **{"group": "g", **options})


@pytest.mark.parametrize("name", ["", " ", "a{b}", "a\0b", "x" * 201, "\ud800"])
async def test_inspector_and_doctor_reject_invalid_group_and_namespace_names(name: str) -> None:
    """The name of a key would be truncated, or could not be encoded."""
    url = "redis://127.0.0.1:1/0"
    with pytest.raises(UsageError, match="group is"):
        GroupInspector(url, group=name)
    with pytest.raises(UsageError, match="namespace is"):
        GroupInspector(url, namespace=name)
    with pytest.raises(UsageError, match="namespace is"):
        await examine_server(url, name)


async def test_names_and_keys_that_cannot_be_stored_are_rejected(
    shared_server: Server, namespace: str
) -> None:
    """Callers would get a UnicodeEncodeError, or one name would use the state of another."""
    keys: list[Any] = ["\ud800", 5, ["a"]]
    async with make_bus(shared_server, namespace, Recorder(), partition_key=lambda _: keys[0]) as bus:
        subscriptions = bus.subscriptions
        for call in (subscriptions.pause, subscriptions.resume, subscriptions.forget, subscriptions.replay):
            with pytest.raises(UsageError, match="lone surrogate"):
                await call("\ud800")
        with pytest.raises(UsageError, match="lone surrogate"):
            await subscriptions.reset("\ud800", "now")
        while keys:
            with pytest.raises(UsageError, match="partition_key returned"):
                await bus.publish(Moved("a", 1))
            del keys[0]
        for name in ("a\0b", "sub\0held"):
            with pytest.raises(SubscriptionError, match="NUL"):
                bus.subscribe(Moved, Recorder(), name=name)
        assert list(bus.get_statistics()["subscriptions"]) == ["sub"]


async def test_starting_and_stopping_twice_is_harmless_but_stop_fails_inside_a_handler(
    shared_server: Server, namespace: str
) -> None:
    """A handler that stops or drains its own bus would wait for itself."""
    errors: list[str] = []
    bus = make_bus(shared_server, namespace, lease=10.0)

    async def handle(event: Moved) -> None:
        for call in (bus.stop, bus.drain):
            try:
                await call()
            except InsideHandlerError as error:
                errors.append(str(error))

    bus.subscribe(Moved, handle, name="sub")
    await bus.start()
    partitions = bus.partitions
    await bus.start()
    assert bus.partitions == partitions
    await bus.publish(Moved("a", 1))
    await bus.drain(timeout=30)
    assert len(errors) == 2
    await bus.stop()
    await bus.stop()
    assert not bus.is_running


async def test_relay_rejects_an_invalid_batch_size(shared_server: Server, tmp_path: Path) -> None:
    """The relay would silently publish nothing."""
    bus = RedisEventBus(shared_server.url, group="g")
    async with SqliteEventStorage(tmp_path / "local.db") as storage:
        for batch in (0, True, 1.5):
            with pytest.raises(SubscriptionError, match="batch is"):
                relay(storage, bus, batch=batch)  # type: ignore[arg-type]


async def test_a_log_rejects_calls_unless_open_and_may_be_opened_twice(
    shared_server: Server, namespace: str
) -> None:
    """A call on a closed connection would wait for an answer that never arrives."""
    log = RedisLog(shared_server.url, namespace=namespace, partitions=2)
    with pytest.raises(StorageClosedError):
        await log.link.call("PING")
    await log.open()
    connections = log.link.connections
    await log.open()
    assert await log.link.call("PING") == b"PONG"
    assert log.link.connections == connections
    await log.close()
    with pytest.raises(StorageClosedError):
        await log.link.call("PING")


def test_an_entry_whose_event_count_differs_from_its_id_is_rejected() -> None:
    """Otherwise events would get the positions of other events."""
    records = [encode_event(event, 1 << 20) for event in moves(1, 2)]
    body = msgspec.msgpack.encode(records)
    fields = [b"t", b"5", b"e", struct.pack("<I", crc32(body)) + body]
    assert decode_entry(b"7-2", fields, "log").first == 6
    with pytest.raises(CorruptLogError, match="2 events, not 3"):
        decode_entry(b"7-3", fields, "log")


async def test_keys_with_a_nul_have_queues_of_their_own(shared_server: Server, namespace: str) -> None:
    """Promise 44. A retry of one key could release events queued behind another key's dead letter."""
    recorder, broken = Recorder(), True
    keys = ["a", "a\0b", "a\0", "a\1", "a\1\2b"]

    async def handle(event: Moved) -> None:
        if broken and event.number < len(keys):
            raise ValueError("not this one")
        await recorder.handle(event)

    def make_subscribed_bus() -> RedisEventBus:
        bus = make_bus(shared_server, namespace, partitions=1, lease=10.0)
        bus.subscribe(Moved, handle, name="sub", retry=RetryPolicy(max_attempts=1), on_exhausted="park_key")
        return bus

    async with make_subscribed_bus() as bus:
        await bus.publish_batch([Moved(key, n) for n, key in enumerate(keys * 3)])
        await bus.drain(timeout=30)
        assert [(one.key, one.queued) for one in await bus.dead_letters.list()] == [
            (f"thing/{key}", 2) for key in keys
        ]
    broken = False
    async with make_subscribed_bus() as bus:
        await bus.publish_batch([Moved(key, n) for n, key in enumerate(keys * 4) if n >= 3 * len(keys)])
        await bus.drain(timeout=30)
        assert recorder.numbers == []
        for number, key in enumerate(keys):
            await bus.dead_letters.retry(number + 1)
            await until(lambda: len(recorder.numbers) >= 4 * (number + 1))  # noqa: B023
            assert recorder.by_key[key] == [number + turn * len(keys) for turn in range(4)]
            assert len(recorder.numbers) == 4 * (number + 1)


# -- changes at run time ------------------------------------------------------------------------------------


async def test_subscriptions_and_middleware_can_change_while_the_bus_runs(
    shared_server: Server, namespace: str
) -> None:
    """A change must take effect in the partitions already taken, not only in those taken later."""
    late, passed = Recorder(), Recorder()

    async def audit(event: Moved, context: Any, call_next: Any) -> Any:
        await passed.handle(event)
        return await call_next()

    async with make_bus(shared_server, namespace, Recorder(), lease=10.0) as bus:
        assert len(bus.partitions) == 8
        await bus.publish_batch(moves(16, 16))
        await bus.drain(timeout=30)
        subscription = bus.subscribe(Moved, late, name="late")
        await bus.drain(timeout=30)
        bus.use(audit)
        await bus.publish_batch([Moved(f"k{number}", number) for number in range(16, 32)])
        await bus.drain(timeout=30)
        assert sorted(late.numbers) == list(range(16, 32))
        assert sorted(passed.numbers) == sorted([*range(16, 32), *range(16, 32)])
        assert bus.unsubscribe(subscription)
        await bus.publish_batch([Moved(f"k{number}", number) for number in range(32, 48)])
        await bus.drain(timeout=30)
        assert sorted(late.numbers) == list(range(16, 32))
        assert "late" not in bus.get_statistics()["subscriptions"]


async def test_a_halted_subscription_shows_in_statistics_and_can_be_resumed(
    shared_server: Server, namespace: str
) -> None:
    """Promise 26. A halted partition must not be hidden by the seven that work."""
    recorder, broken = Recorder(), True

    async def handle(event: Moved) -> None:
        if broken and event.number == 3:
            raise ValueError("not this one")
        await recorder.handle(event)

    bus = make_bus(shared_server, namespace, lease=10.0)
    bus.subscribe(Moved, handle, name="sub", retry=RetryPolicy(max_attempts=1), on_exhausted="stop")
    async with bus:
        await bus.publish_batch(moves(16, 16))
        await bus.drain(timeout=30)
        assert bus.get_statistics()["subscriptions"]["sub"]["state"] == "halted"
        assert bus.health().status == "failing"
        broken = False
        assert await bus.resume("sub")
        await bus.drain(timeout=30)
        assert bus.get_statistics()["subscriptions"]["sub"]["state"] == "active"
    assert sorted(recorder.numbers) == list(range(16))


async def test_a_negative_limit_is_rejected_and_a_limit_of_zero_returns_nothing(
    shared_server: Server, namespace: str
) -> None:
    """A negative limit, or a limit of zero, would return all events."""
    async with make_bus(shared_server, namespace, Recorder().handle, partitions=1) as bus:
        await bus.drain(timeout=30)
        await bus.subscriptions.pause("sub")
        await bus.publish_batch(moves(1, 3))
        storage = bus._group_engine.running[0].storage
        calls: list[Callable[[int], Awaitable[Any]]] = [
            storage.get_unprocessed_events,
            lambda limit: _read(storage, limit),
            lambda limit: bus.dead_letters.list(limit=limit),
        ]
        for call in calls:
            assert await call(0) == []
            with pytest.raises(UsageError, match="limit is -1; it cannot be negative"):
                await call(-1)
        assert len(await storage.get_unprocessed_events(2)) == 2


async def _read(storage: PartitionStorage, limit: int) -> list[int]:
    return [one.position async for one in storage.read(limit=limit)]


async def test_calls_from_another_loop_raise_wrong_loop_error(shared_server: Server, namespace: str) -> None:
    """Its commands would be sent between those of the bus, and answers reach the wrong callers."""
    async with make_bus(shared_server, namespace, Recorder()) as bus:
        with pytest.raises(WrongLoopError, match="ask the server"):
            await asyncio.to_thread(lambda: asyncio.run(bus.dead_letters.list()))
        assert await bus.dead_letters.list() == []


async def test_health_reports_that_processes_of_a_group_subscribe_to_different_names(
    shared_server: Server, namespace: str
) -> None:
    """Events would wait in the other process's partitions while both processes seem healthy."""
    one, two = make_bus(shared_server, namespace), make_bus(shared_server, namespace)
    for bus, name in ((one, "billing"), (two, "mail")):
        bus.subscribe(Moved, Recorder(), name=name)
    async with one, two:
        await until(lambda: len(one.partitions) == len(two.partitions) == 4)
        coordinator = one._coordinator
        assert coordinator is not None
        await until(lambda: len(owned_by_others(coordinator)) == 4)
        view = coordinator.view
        assert view is not None
        for _ in range(2):  # at the first check, the other process may still be taking its partitions
            await coordinator.peers.check(["billing"], view)
        assert one.health().status == "degraded"
        assert "'billing' makes no progress in 4 partitions" in one.health().reasons[0]
        overview = await operations_of(one).overview()
        assert (overview.health, [reason.code for reason in overview.reasons]) == ("degraded", ["group"])
        assert overview.reasons[0].text == one.health().reasons[0]
        assert without_error_messages(overview, ())[0] == overview
        assert "파티션 4개에서 기다립니다" in in_korean(overview.reasons[0].text)
        two.subscribe(Moved, Recorder(), name="billing")
        async with asyncio.timeout(30):
            while one.health().status != "ok":
                await coordinator.peers.check(["billing"], view)


def owned_by_others(coordinator: Coordinator) -> list[str]:
    """Return the owners of the partitions that other processes had in the last round."""
    leases = () if coordinator.view is None else coordinator.view.leases
    return [lease.owner for lease in leases if lease.owner not in ("", coordinator.membership.member)]
