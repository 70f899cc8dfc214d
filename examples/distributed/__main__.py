"""Run the application twice: in one process, and as separate processes of which one is killed.

``python -m examples.distributed --url redis://127.0.0.1:6379/0`` prints the positions of both, and ends with
status 1 unless they are the same. Without ``--url`` it starts the ``redis-server`` on PATH for itself.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from examples.distributed.app import (
    Broker,
    OrderFilled,
    OrderPlaced,
    Portfolio,
    Strategy,
    TickReceived,
    ticks,
)
from pabal import EventBusFactory
from pabal.errors import BrokerError

LEASE = 1.0


async def single(count: int) -> list[str]:
    """Run everything in this process, on an in-memory bus."""
    portfolio = Portfolio()
    async with EventBusFactory.from_url("memory://") as bus:
        subscribe(bus, "strategy", Strategy(bus), TickReceived)
        subscribe(bus, "broker", Broker(bus), OrderPlaced)
        subscribe(bus, "portfolio", portfolio, OrderFilled)
        for tick in ticks(count):
            await bus.publish(tick)
        await bus.drain(timeout=60)
    return portfolio.summary()


def subscribe(bus: Any, name: str, part: Any, event_type: type) -> None:
    """Subscribe a part of the application to its events."""
    bus.subscribe(event_type, part, name=name)


async def run_part(part: str, url: str, namespace: str, count: int) -> None:
    """Run one process of the application: ``feed``, ``strategy``, ``broker`` or ``portfolio``."""
    bus = EventBusFactory.from_url(url, group=part, namespace=namespace, partitions=8, lease=LEASE)
    portfolio = Portfolio()
    parts: dict[str, tuple[Any, type]] = {
        "strategy": (Strategy(bus), TickReceived),
        "broker": (Broker(bus), OrderPlaced),
        "portfolio": (portfolio, OrderFilled),
    }
    if part in parts:
        subscribe(bus, part, *parts[part])
    await bus.start()
    print("ready", flush=True)
    if part == "feed":
        for tick in ticks(count):
            await bus.publish(tick)
            await asyncio.sleep(0.001)
    else:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        await bus.drain(timeout=60)
    await bus.stop()
    if part == "portfolio":
        print("\n".join(portfolio.summary()), flush=True)


class Part:
    """One process of the application."""

    def __init__(self, name: str, url: str, namespace: str, count: int) -> None:
        self.name = name
        command = [sys.executable, "-m", "examples.distributed", "--part", name, "--url", url]
        command += ["--namespace", namespace, "--ticks", str(count)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise SystemExit(f"{name} did not start")

    def end(self) -> list[str]:
        """Let it finish the remaining events, and return its final output."""
        said, _ = self.process.communicate("\n", timeout=120)
        return said.splitlines()


def distributed(url: str, count: int) -> list[str]:
    """Run each part in its own process, the strategy in two, and kill one of the two midway."""
    namespace = f"distributed-{uuid.uuid4().hex[:8]}"
    portfolio = Part("portfolio", url, namespace, count)
    broker = Part("broker", url, namespace, count)
    first, second = (Part("strategy", url, namespace, count) for _ in range(2))
    feed = Part("feed", url, namespace, count)
    time.sleep(count * 0.001 / 3)
    first.process.send_signal(signal.SIGKILL)
    first.process.communicate()
    print("one of two strategy processes was killed", file=sys.stderr)
    feed.process.communicate(timeout=120)
    # Each waits until its whole group has handled everything, so end them in the order of the flow.
    second.end()
    broker.end()
    return portfolio.end()


@contextmanager
def own_server() -> Iterator[str]:
    """Run a server for this example only."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        raise SystemExit("there is no redis-server on PATH; name a server with --url redis://host:6379/0")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp()
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        folder,
        "--save",
        "",
        "--appendonly",
        "yes",
    ]
    process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def compare(url: str, count: int) -> int:
    """Print both results; return 0 if they are the same."""
    together = asyncio.run(single(count))
    apart = distributed(url, count)
    print("one process:       ", ", ".join(together))
    print("separate processes:", ", ".join(apart))
    print("the same" if apart == together else "NOT the same")
    return int(apart != together)


def main() -> None:
    """Run one part, or compare both ways."""
    parser = argparse.ArgumentParser(prog="python -m examples.distributed", description=__doc__)
    parser.add_argument("--url", help="a server; without it the redis-server on PATH is started")
    parser.add_argument("--ticks", type=int, default=2_000)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--namespace", default="distributed", help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.part:
            asyncio.run(run_part(options.part, options.url, options.namespace, options.ticks))
        elif options.url:
            sys.exit(compare(options.url, options.ticks))
        else:
            with own_server() as url:
                sys.exit(compare(url, options.ticks))
    except BrokerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
