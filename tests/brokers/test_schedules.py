"""Scheduled events are kept on the server; any process moves them to the log when they are due."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from pabal.errors import BrokerUnavailableError
from tests.brokers.events import Moved, Recorder, until
from tests.brokers.proxy import Proxy
from tests.brokers.server import Server
from tests.brokers.support import make_bus, make_bus_through
from tests.brokers.test_server_gone import disconnect


async def test_events_due_together_are_appended_in_few_entries(own_server: Server, namespace: str) -> None:
    """Promise 43. At three round trips per event, a dead process's partitions would wait to be taken over."""
    recorder = Recorder()
    due = datetime.now(UTC) - timedelta(days=1)
    async with make_bus(own_server, namespace) as publisher:  # does not look for due events itself
        for number in range(400):
            await publisher._group_log._schedule.add(Moved("k", number), due.timestamp())
    with Redis.from_url(own_server.url) as client:
        client.config_resetstat()
        async with make_bus(own_server, namespace, recorder):
            await until(lambda: len(recorder.numbers) == 400)
            assert client.info("commandstats")["cmdstat_xadd"]["calls"] <= 40
    assert recorder.numbers == list(range(400))


async def test_scheduling_waits_for_a_server_that_restarts(own_server: Server, namespace: str) -> None:
    """``publish`` with a ``delay`` would fail as soon as the connection breaks; without one, it waits."""
    recorder = Recorder()
    async with make_bus(own_server, namespace, recorder, lease=10.0) as bus:
        scheduling = [asyncio.ensure_future(bus.publish(Moved("k", n), delay=0.01)) for n in range(50)]
        await asyncio.sleep(0)
        await own_server.restart()
        await asyncio.gather(*scheduling)
        await until(lambda: len(recorder.numbers) == 50)
    assert sorted(recorder.numbers) == list(range(50))


async def test_scheduling_fails_at_once_with_when_disconnected_fail(
    shared_server: Server, namespace: str
) -> None:
    """``publish`` with a ``delay`` would wait in spite of ``when_disconnected="fail"``."""
    async with Proxy(shared_server.port) as proxy:
        bus = make_bus_through(proxy, namespace, Recorder(), when_disconnected="fail", patience=60.0)
        await bus.start()
        await disconnect(proxy, bus)
        since = time.monotonic()
        with pytest.raises(BrokerUnavailableError):
            await bus.publish(Moved("k", 1), delay=1.0)
        assert time.monotonic() - since < 30.0
        await bus.stop(timeout=0)
