"""Interruptions: answers that never arrive, a new incarnation of the log, a closed event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from pabal.brokers.redis import RedisEventBus, pages
from pabal.brokers.redis.doctor import examine_server
from pabal.brokers.redis.extent import measure_extents
from pabal.brokers.redis.inspector import GroupInspector
from pabal.brokers.redis.link import Link
from pabal.brokers.redis.scripts import script
from pabal.errors import BrokerUnavailableError, PartitionCountError, UsageError
from pabal.factory import EventBusFactory
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.proxy import Proxy
from tests.brokers.server import Server
from tests.brokers.support import make_bus, make_bus_through
from tests.bus.test_closed_loop import CutShortError, run_and_cancel, run_and_drop

SOON = 5.0
"""Seconds: far more than the tested action takes, but less than the lease that would also end it."""


# -- the server restarts ----------------------------------------------------------------------------------


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
        assert all(one.storage.pages.follows for one in bus._group_engine.running.values())
        await other.publish_batch([Moved(f"k{number % 8}", number) for number in range(40, 80)])
        await until(lambda: len(recorder.numbers) == 80)


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
    """Promise 42. Each restart would add a field to every partition for ever, to be read at every look."""
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


# -- answers that never arrive ----------------------------------------------------------------------------


async def test_a_process_without_answers_stops_handling_before_another_takes_over(
    shared_server: Server, namespace: str
) -> None:
    """Promise 41. Events in its lanes would be handled by two processes until the connection broke."""
    owner: list[str] = []
    at_once: list[int] = []

    async def left(event: Moved) -> None:
        if len(other.partitions) == 4:
            at_once.append(event.number)
        owner.append("left")
        await asyncio.sleep(0.01)  # slow enough that the lanes hold more events than it can handle in time

    async with Proxy(shared_server.port) as proxy:
        cut_off = RedisEventBus(proxy.url, group="g", namespace=namespace, partitions=4, lease=1.0)
        cut_off.subscribe(Moved, left, name="sub")
        cut_off._log.link._answer_within = 30.0
        await cut_off.start()
        async with make_bus(shared_server, namespace, Recorder(), partitions=4) as other:
            await until(lambda: len(other.partitions) == len(cut_off.partitions) == 2)
            await other.publish_batch(moves(8, 2000))
            await until(lambda: bool(owner))
            proxy.swallow = True
            await until(lambda: len(other.partitions) == 4)
            handled = len(owner)
            await until(lambda: all(engine.halting for engine in cut_off._group_engine.engines()))
            assert not at_once
            assert len(owner) == handled
            await cut_off.stop(timeout=0)


async def test_stop_keeps_its_timeout_when_the_server_does_not_answer(
    shared_server: Server, namespace: str
) -> None:
    """A stop would take as long as waiting for a connection, a lease or more, whatever its timeout."""
    async with Proxy(shared_server.port) as proxy:
        bus = make_bus_through(proxy, namespace, Recorder(), lease=10.0)
        await bus.start()
        proxy.swallow = True
        publishing = asyncio.ensure_future(bus.publish(Moved("a", 1)))
        await asyncio.sleep(0)
        async with asyncio.timeout(SOON):
            await bus.stop(timeout=0.1)
        with pytest.raises(BrokerUnavailableError):
            await publishing


async def test_publish_gives_up_after_its_patience_while_a_connection_is_being_made(
    shared_server: Server, namespace: str
) -> None:
    """Publishers would wait until a connection attempt into a silent network is given up."""
    async with Proxy(shared_server.port) as proxy:
        bus = make_bus_through(proxy, namespace, Recorder(), lease=10.0, patience=0.5)
        await bus.start()
        link = bus._log.link
        is_connecting = partial(_is_connecting, link)
        proxy.swallow = True
        proxy.cut()
        await until(is_connecting)
        async with asyncio.timeout(SOON):
            with pytest.raises(BrokerUnavailableError):
                await bus.publish(Moved("a", 1))
            await bus.stop(timeout=0)
        del bus, link, is_connecting
        gc.collect()  # a connection left half open would cause a warning here


def _is_connecting(link: Link) -> bool:
    return not link.is_connected and link._connection is not None


async def test_a_cancelled_inspector_call_leaves_no_connecting_task(
    shared_server: Server, namespace: str
) -> None:
    """A task would try to reach the server until the program ends."""
    async with Proxy(shared_server.port) as proxy:
        proxy.swallow = True
        inspector = GroupInspector(proxy.url, namespace=namespace)
        looking = asyncio.ensure_future(inspector.list_dead_letters())
        await until(lambda: bool(_links()))
        looking.cancel()
        await asyncio.wait([looking])
        assert not _links()


def _links() -> list[str]:
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("pabal-redis")]


async def test_each_caller_gets_its_own_error_when_the_connection_breaks(
    shared_server: Server, namespace: str
) -> None:
    """Each raise adds frames to an error; a shared error would keep the variables of all callers alive."""
    async with Proxy(shared_server.port) as proxy:
        bus = make_bus_through(proxy, namespace, Recorder(), lease=10.0)
        await bus.start()
        proxy.swallow = True
        calls = [bus._log.link.call("PING") for _ in range(3)]
        proxy.cut()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert len({id(error) for error in errors}) == 3
        await bus.stop(timeout=0)


# -- another log, another loop ----------------------------------------------------------------------------


async def test_a_log_recreated_with_another_partition_count_is_rejected(
    own_server: Server, namespace: str
) -> None:
    """Keys would move to other partitions, or publishers wait for ever for a connection."""
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
    with pytest.raises(BrokerUnavailableError, match="has 2 partitions, not 16"):
        await bus.publish(Moved("a", 3))
    assert bus.health().status == "failing"
    await bus.stop(timeout=0)


@pytest.fixture
def swept() -> Iterator[None]:
    """Collect the remains of a closed loop before the next test; pytest keeps some until this one ends."""
    yield
    gc.collect()


@pytest.mark.usefixtures("swept")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("stops", [0, 2])
@pytest.mark.parametrize("run", [run_and_cancel, run_and_drop])
def test_a_bus_whose_loop_was_closed_can_be_stopped_and_started(
    shared_server: Server, namespace: str, run: Any, stops: int
) -> None:
    """``asyncio.run`` closes the loop after an exception; ``stop()`` would raise "Event loop is closed".

    Without a stop, ``start()`` would take the bus for running, and refuse publishes as if in a wrong loop.
    """
    recorder = Recorder()
    bus = make_bus(shared_server, namespace, recorder, partitions=2)

    async def cut_short() -> None:
        await bus.start()
        await bus.publish(Moved("a", 1))
        raise CutShortError

    async def go_on() -> None:
        for _ in range(stops):
            await bus.stop()
        async with bus:
            await bus.publish(Moved("a", 2))
            await bus.drain(timeout=30)

    run(cut_short)
    asyncio.run(go_on())
    assert set(recorder.numbers) == {1, 2}
    gc.collect()  # nothing can close the sockets of a closed loop


async def test_workers_of_a_lost_partition_end_when_they_are_cancelled(
    own_server: Server, namespace: str
) -> None:
    """``asyncio.run`` would wait for ever for a worker that ignores its cancellation."""
    begun = asyncio.Event()

    async def hang(event: Moved) -> None:
        begun.set()
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    bus = make_bus(own_server, namespace, hang, partitions=1, lease=0.3)
    await bus.start()
    await bus.publish(Moved("a", 1))
    await begun.wait()
    own_server.kill()
    await until(lambda: not bus.partitions)
    tasks = asyncio.all_tasks() - before
    for task in tasks:
        task.cancel()
    _, left = await asyncio.wait(tasks, timeout=SOON)
    await bus.stop(timeout=0)
    assert not left


@pytest.mark.parametrize("timeout", [None, 60.0], ids=["the short way", "the full way"])
async def test_a_handler_that_raises_cancelled_error_in_a_lost_partition_costs_no_worker(
    own_server: Server, namespace: str, timeout: float | None
) -> None:
    """Workers must go on with other partitions; if the last one ended, nothing more would be handled."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    handled: list[int] = []

    async def handle(event: Moved) -> None:
        if event.number == 1 and not go_on.is_set():
            begun.set()
            await go_on.wait()
            raise asyncio.CancelledError  # as if something it awaited was cancelled
        handled.append(event.number)

    bus = make_bus(own_server, namespace, partitions=1, lease=0.3, worker_count=1)
    bus.subscribe(Moved, handle, name="sub", timeout=timeout)
    async with bus:
        await bus.publish(Moved("a", 1))
        await begun.wait()
        own_server.kill()
        await until(lambda: not bus.partitions)
        go_on.set()
        own_server.start()
        await until(lambda: bool(bus.partitions))
        await bus.publish(Moved("b", 2))
        await bus.drain(timeout=30)
        assert set(handled) == {1, 2}
        assert bus.health().status == "ok"


# -- reading ----------------------------------------------------------------------------------------------


async def test_wait_for_since_a_trimmed_receipt_returns_the_next_event(
    shared_server: Server, namespace: str
) -> None:
    """``wait_for`` would raise an IndexError once all events are handled and trimmed."""
    async with make_bus(shared_server, namespace, Recorder(), partitions=2, keep=0) as bus:
        receipt = await bus.publish(Moved("a", 1))
        await bus.drain(timeout=30)
        assert bus._coordinator is not None
        await bus._coordinator.trim()
        waiting = asyncio.ensure_future(bus.wait_for(Moved, since=receipt, timeout=30))
        await asyncio.sleep(0)
        while not waiting.done():
            await bus.publish(Moved("b", 2))
        assert (await waiting).number == 2


async def test_large_events_are_not_buffered_without_limit(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of events of a megabyte would wait in memory for a handler slower than the publishers."""
    monkeypatch.setattr(pages, "_CACHED_BYTES", 1000)
    monkeypatch.setattr(pages, "_ENTRIES", 1)
    go, numbers = asyncio.Event(), []

    async def handle(event: Moved) -> None:
        await go.wait()
        numbers.append(event.number)

    async with make_bus(shared_server, namespace, partitions=1, lease=10.0) as bus:
        bus.subscribe(Moved, handle, name="sub")
        await until(lambda: bus.partitions == [0])
        for number in range(40):
            bus._group_engine.running[0].storage.pages.follows = True
            await bus.publish(Moved("k" * 200, number))
        [running] = bus._group_engine.running.values()
        assert running.storage.pages._bytes < 3000
        go.set()
        await bus.drain(timeout=30)
    assert numbers == list(range(40))


@pytest.mark.parametrize("setting", ["decode_responses=true", "protocol=3", "socket_timeout=0.01"])
async def test_url_settings_for_other_clients_do_not_break_the_bus(
    shared_server: Server, namespace: str, setting: str
) -> None:
    """With a URL shared with other clients, pabal would fail with an AttributeError or a TypeError."""
    recorder = Recorder()
    bus = RedisEventBus(f"{shared_server.url}?{setting}", group="g", namespace=namespace, partitions=2)
    bus.subscribe(Moved, recorder, name="sub")
    async with bus:
        await bus.publish(Moved("a", 1))
        await bus.drain(timeout=30)
    assert recorder.numbers == [1]


def test_valkey_schemes_are_accepted_and_others_rejected() -> None:
    """``valkey://`` would work only in the factory; elsewhere the error would blame the host."""
    assert "valkey://localhost" in repr(RedisEventBus("valkey://localhost", group="g"))
    assert "valkeys://localhost" in repr(RedisEventBus("VALKEYS://localhost", group="g"))
    assert "valkey://localhost" in repr(EventBusFactory.from_url("valkey://localhost?group=g"))
    with pytest.raises(UsageError, match="begins with redis://"):
        RedisEventBus("http://localhost", group="g")
