"""Buses on a server, ways to disturb them, and views of them from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from click.testing import CliRunner

from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.link import Link
from pabal.brokers.redis.reports import PartitionLost
from pabal.cli import language
from pabal.cli.app import commands
from pabal.delivery.retry import RetryPolicy
from pabal.factory import open_operations
from pabal.operations import Operations
from pabal.ports.telemetry import Report
from tests.brokers.events import Moved, Recorder, moves
from tests.brokers.proxy import Proxy
from tests.brokers.server import Server


def make_bus(server: Server, namespace: str, handler: Any = None, **options: Any) -> RedisEventBus:
    """Return a bus of group "g"; with a handler, it has the subscription "sub"."""
    bus = RedisEventBus(
        server.url, **{"group": "g", "namespace": namespace, "partitions": 8, "lease": 1.0, **options}
    )
    if handler is not None:
        bus.subscribe(Moved, handler, name="sub", retry=RetryPolicy(max_attempts=2, base_delay=0.01))
    return bus


def make_bus_through(proxy: Proxy, namespace: str, recorder: Recorder, **options: Any) -> RedisEventBus:
    """Return a bus that reaches its server through a proxy."""
    bus = RedisEventBus(
        proxy.url, group="g", namespace=namespace, partitions=4, **{"lease": 2.0, "patience": 60.0, **options}
    )
    bus.subscribe(Moved, recorder, name="sub", start="beginning")
    return bus


def record_lost_partitions(bus: RedisEventBus) -> list[Report]:
    """Return a list that collects every report of a partition that was let go unsaved."""
    lost: list[Report] = []
    bus.listen(lambda report: lost.append(report) if isinstance(report, PartitionLost) else None)
    return lost


def stop_heartbeats(bus: RedisEventBus) -> None:
    """Stop a process's heartbeats without its noticing, as SIGSTOP does."""
    coordinator = bus._coordinator
    assert coordinator is not None
    for task in (coordinator._task, *coordinator.heartbeat.tasks):
        assert task is not None
        task.cancel()


def fail_on_odd(event: Moved) -> None:
    """Handle an event; raises ValueError if its number is odd."""
    if event.number % 2:
        raise ValueError(f"{event.number} is odd")


# -- from outside -----------------------------------------------------------------------------------------


def url_of(server: Server, namespace: str, group: str = "g") -> str:
    """Return the URL of a group's operations."""
    return f"{server.url}?namespace={namespace}" + (f"&group={group}" if group else "")


def run_cli(*args: str, lang: str = "en") -> tuple[int, str]:
    """Run a command of ``pabal``; return its exit code and its output."""
    try:
        done = CliRunner().invoke(commands, ["--lang", lang, *args])
    finally:
        language.choose(None)  # the next test in this process must not inherit the language
    return done.exit_code, done.output


@asynccontextmanager
async def group_with_dead_letters(
    server: Server, namespace: str, count: int = 6
) -> AsyncIterator[Operations]:
    """Yield operations on a group that has parked every second event, and whose process has ended."""
    async with make_bus(server, namespace, fail_on_odd) as bus:
        await bus.publish_batch(moves(3, count))
        await bus.drain(timeout=30)
    async with open_operations(url_of(server, namespace), actor="kim") as operations:
        yield operations


async def dump_namespace(server: Server, namespace: str) -> dict[bytes, bytes]:
    """Return all keys of a namespace with their contents."""
    link = Link(server.url, loads_scripts=False)
    await link.open()
    try:
        keys = await link.call("KEYS", f"{{{namespace}}}:*")
        return {key: await link.call("DUMP", key) for key in sorted(keys)}
    finally:
        await link.close()
