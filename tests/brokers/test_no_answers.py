"""Answers that never arrive: handlers, calls and stops end in time, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
from functools import partial

import pytest

from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.inspector import GroupInspector
from pabal.brokers.redis.link import Link
from pabal.errors import BrokerUnavailableError, StorageClosedError
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.proxy import Proxy
from tests.brokers.server import Server
from tests.brokers.support import make_bus, make_bus_through

SOON = 5.0
"""Seconds: far more than the tested action takes, but less than the lease that would also end it."""


async def test_a_process_without_answers_stops_handling_before_another_takes_over(
    shared_server: Server, namespace: str
) -> None:
    """Promise 41. Events in its lanes would be handled by two processes until the connection broke."""
    owner: list[str] = []
    at_once: list[int] = []

    async def handle(event: Moved) -> None:
        if len(other.partitions) == 4:
            at_once.append(event.number)
        owner.append("left")
        await asyncio.sleep(0.01)  # slow enough that the lanes hold more events than it can handle in time

    async with Proxy(shared_server.port) as proxy:
        cut_off = RedisEventBus(proxy.url, group="g", namespace=namespace, partitions=4, lease=1.0)
        cut_off.subscribe(Moved, handle, name="sub")
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
        await until(lambda: bool(_connecting_tasks()))
        looking.cancel()
        await asyncio.wait([looking])
        assert not _connecting_tasks()


async def test_a_connection_closed_while_it_is_being_made_raises_a_typed_error(shared_server: Server) -> None:
    """`pabal tail` and the dashboard would end with an AttributeError if they are closed in that moment."""
    async with Proxy(shared_server.port) as proxy:
        proxy.swallow = True
        link = Link(proxy.url, loads_scripts=False)
        opening = asyncio.ensure_future(link.open())
        await until(partial(_is_connecting, link))
        await link.close()
        with pytest.raises(StorageClosedError):
            await opening
        assert not _connecting_tasks()


def _connecting_tasks() -> list[str]:
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
