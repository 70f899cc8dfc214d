"""Publishing while the server is gone, has lost its scripts, or already has an event with the same id."""

from __future__ import annotations

import asyncio

import pytest
from redis import Redis

from pabal import DomainEvent
from pabal.brokers.redis import pages
from pabal.errors import BrokerUnavailableError, DuplicateEventError, StorageClosedError
from pabal.factory import open_operations
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.proxy import Proxy
from tests.brokers.server import Server
from tests.brokers.support import group_with_dead_letters, make_bus, make_bus_through, url_of


class Whispered(DomainEvent):
    """An event of a type that no test waits for."""

    event_type = "test.redis.whispered"
    number: int


async def disconnect(proxy: Proxy, bus: object) -> None:
    """Cut the connections to the server, and return when the bus has noticed."""
    proxy.refuse = True
    proxy.cut()
    await until(lambda: not bus._log.link.is_connected)  # type: ignore[attr-defined]


async def test_pending_publishes_fail_when_the_bus_stops_without_its_server(
    shared_server: Server, namespace: str
) -> None:
    """Each publisher would wait without end, and the program would not exit."""
    async with Proxy(shared_server.port) as proxy:
        bus = make_bus_through(proxy, namespace, Recorder())
        await bus.start()
        await disconnect(proxy, bus)
        publishing = [asyncio.ensure_future(bus.publish(event)) for event in moves(4, 20)]
        await asyncio.sleep(0)
        await bus.stop(timeout=0)
        results = await asyncio.gather(*publishing, return_exceptions=True)
        assert {type(result) for result in results} <= {BrokerUnavailableError, StorageClosedError}
        assert len(results) == 20


async def test_publishes_accepted_before_stop_are_stored(shared_server: Server, namespace: str) -> None:
    """Closing the bus would drop events whose publishers still wait for the receipt."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, lease=10.0) as bus:
        publishing = [asyncio.ensure_future(bus.publish(event)) for event in moves(4, 20)]
        await asyncio.sleep(0)
        await bus.stop()
        receipts = await asyncio.gather(*publishing)
    assert len({receipt.position for receipt in receipts}) == 20
    async with make_bus(shared_server, namespace, lease=10.0) as bus:
        bus.subscribe(Moved, recorder, name="sub", start="beginning")
        await bus.drain(timeout=30)
    assert sorted(recorder.numbers) == list(range(20))


async def test_publish_gives_up_after_its_patience(shared_server: Server, namespace: str) -> None:
    """A publisher would wait for as long as the server is down, even beyond its patience."""
    async with Proxy(shared_server.port) as proxy:
        bus = make_bus_through(proxy, namespace, Recorder(), lease=10.0)
        async with bus:
            await disconnect(proxy, bus)
            bus._log._patience = bus._log.link._patience = 0.05  # set only now: connecting may take longer
            with pytest.raises(BrokerUnavailableError):
                await bus.publish(Moved("a", 1))
            bus._log._patience = bus._log.link._patience = 60.0
            proxy.refuse = False
            await until(lambda: bus._log.link.is_connected)
            await bus.publish(Moved("a", 2))


async def test_scripts_are_loaded_again_after_script_flush(own_server: Server, namespace: str) -> None:
    """After another client's SCRIPT FLUSH, no event could be published any more."""
    recorder = Recorder()
    async with make_bus(own_server, namespace, recorder, lease=10.0) as bus:
        await bus.publish(Moved("a", 1))
        await bus._log.link.call("SCRIPT", "FLUSH")
        await bus.publish(Moved("a", 2))
        await bus.drain(timeout=30)
    assert recorder.numbers == [1, 2]


async def test_a_batch_with_known_ids_is_rejected_as_a_whole(shared_server: Server, namespace: str) -> None:
    """Half of the batch would be stored, or events of other publishers would fail with it."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder, lease=10.0) as bus:
        first, second = Moved("a", 1), Moved("a", 2)
        await bus.publish_batch([first, second])
        others = [
            Moved("a", 10, event_id=first.event_id),
            Moved("a", 11),
            Moved("a", 12, event_id=second.event_id),
        ]
        rejected, stored = await asyncio.gather(
            bus.publish_batch(others), bus.publish(Moved("a", 3)), return_exceptions=True
        )
        assert isinstance(rejected, DuplicateEventError)
        assert not isinstance(stored, BaseException)
        await bus.drain(timeout=30)
    assert sorted(recorder.numbers) == [1, 2, 3]


async def test_the_memory_for_event_ids_is_bounded(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process would keep the id of every event it has seen: a memory leak."""
    monkeypatch.setattr(pages, "_REMEMBERED", 10)
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder, partitions=1, lease=10.0) as bus:
        for start in range(0, 100, 5):
            await bus.publish_batch([Moved("a", start + n) for n in range(5)])
        await bus.drain(timeout=30)
        [running] = bus._group_engine.running.values()
        held = running.storage.pages
        assert len(held._recent) + len(held._older) <= 30
    assert recorder.numbers == list(range(100))


async def test_wait_for_finds_the_matching_event_among_others(shared_server: Server, namespace: str) -> None:
    """A request would get the wrong answer, or none, because of other events published meanwhile."""
    async with make_bus(shared_server, namespace, lease=10.0) as bus:
        for number in range(5):
            await bus.publish(Moved(f"k{number}", number))
        receipt = await bus.publish(Moved("k0", 5))
        for number in range(6, 12):
            await bus.publish(Whispered(number))
            await bus.publish(Moved(f"k{number}", number))
        found = await bus.wait_for(Moved, where=lambda e: e.number == 11, since=receipt, timeout=30)
        assert found.number == 11
        waiting = asyncio.ensure_future(bus.wait_for(Moved, where=lambda e: e.number == 21, timeout=30))
        await asyncio.sleep(0)
        for number in (20, 22, 21):
            await bus.publish(Whispered(number))
            await bus.publish(Moved("k0", number))
        assert (await waiting).number == 21


async def test_dead_letters_of_a_subscription_the_owner_lacks_wait_for_one_that_has_it(
    shared_server: Server, namespace: str
) -> None:
    """A partition's owner that runs an older release would fail over a subscription it does not have."""
    async with group_with_dead_letters(shared_server, namespace, 6):
        pass
    other, recorder = Recorder(), Recorder()
    bus = make_bus(shared_server, namespace)
    bus.subscribe(Moved, other, name="other")
    async with bus, open_operations(url_of(shared_server, namespace)) as operations:
        letters = {
            one.event.payload["number"]: one.id for one in (await operations.dead_letters()).dead_letters
        }
        assert (await operations.retry(letters[1])).count == 1
        assert (await operations.discard(letters[3])).count == 1
        await bus.publish(Moved("k0", 100))
        await bus.drain(timeout=30)
        assert other.numbers == [100]
    async with make_bus(shared_server, namespace, recorder):
        await until(lambda: {1, 100} <= set(recorder.numbers))
    assert 3 not in recorder.numbers


async def test_health_is_failing_while_the_server_is_a_replica(own_server: Server, namespace: str) -> None:
    """A server made a replica still answers, so a bus that has lost all partitions would report "ok"."""
    async with make_bus(own_server, namespace, Recorder(), lease=0.3) as bus:
        with Redis.from_url(own_server.url) as client:
            client.replicaof("127.0.0.1", own_server.port)
            await until(lambda: bus.health().status == "failing")
            [reason] = bus.health().reasons
            assert "cannot be looked after" in reason
            client.replicaof("NO", "ONE")
            await until(lambda: bus.health().status == "ok")
            await until(lambda: len(bus.partitions) == 8)


async def test_publish_waits_for_a_server_that_lacks_its_replicas(own_server: Server, namespace: str) -> None:
    """While a replica is away, publishing would fail at once, with an error that is not retried."""
    recorder = Recorder()
    async with make_bus(own_server, namespace, recorder) as bus:
        with Redis.from_url(own_server.url) as client:

            def errors() -> int:
                # Redis 6.2 counts an error inside of a script as ERR.
                return sum(one["count"] for one in client.info("errorstats").values())

            client.config_set("min-replicas-to-write", 1)
            before = errors()
            publishing = asyncio.ensure_future(bus.publish(Moved("k", 1)))
            await until(lambda: errors() > before)
            client.config_set("min-replicas-to-write", 0)
        await publishing
        await bus.drain(timeout=30)
    assert recorder.numbers == [1]
