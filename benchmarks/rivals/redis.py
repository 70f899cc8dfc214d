"""Publishers and consumers on a server, of pabal and of its rivals, each run in its own process.

Run as ``python -m benchmarks.rivals.redis ROLE URL EVENTS NUMBER``. A role prints "ready" when it is. A
publisher then waits for a line on stdin; a consumer prints at the end how much it handled, and when.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

from benchmarks.events import OrderPlaced, fields_of, make_events
from benchmarks.model import percentile
from pabal.brokers.redis import RedisEventBus
from pabal.domain.envelope import encode_event

_KEYS = 1_000
_PIPELINE = 100


async def pabal_publisher(url: str, events: int, rate: float) -> None:
    bus = RedisEventBus(url, group="publisher")
    made = make_events(0 if rate else events, _KEYS)
    _set_aside()
    async with bus:
        _say("ready")
        await _wait_for_line()
        _say(time.time())
        if rate:
            await _paced(bus.publish, events, rate)
            return
        waiting: list[asyncio.Task[Any]] = []
        for first in range(0, events, _PIPELINE):
            waiting.append(asyncio.create_task(bus.publish_batch(made[first : first + _PIPELINE])))
            if len(waiting) == 20:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)


async def _paced(
    publish: Callable[[OrderPlaced], Coroutine[Any, Any, Any]], events: int, rate: float
) -> None:
    """Publish each event when it is due, whether or not the earlier ones are stored."""
    begun = time.perf_counter()
    tasks: list[asyncio.Task[Any]] = []
    for number in range(events):
        ahead = begun + number / rate - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        tasks.append(asyncio.create_task(publish(OrderPlaced(*fields_of(number, _KEYS)))))
    await asyncio.gather(*tasks)


async def pabal_consumer(url: str, events: int, handler_ms: float) -> None:
    handled = 0
    done = asyncio.Event()

    async def handle(event: OrderPlaced) -> None:
        nonlocal handled
        if handler_ms:
            await asyncio.sleep(handler_ms / 1000)
        handled += 1
        if handled == events:
            done.set()

    async with _consuming(url, handle, done):
        _report(handled, [])


async def pabal_timing_consumer(url: str, events: int, number: float) -> None:
    delays: list[float] = []
    done = asyncio.Event()

    async def handle(event: OrderPlaced) -> None:
        delays.append(time.time() - event.occurred_at.timestamp())
        if len(delays) == events:
            done.set()

    async with _consuming(url, handle, done):
        _report(len(delays), delays)


@asynccontextmanager
async def _consuming(
    url: str, handle: Callable[[OrderPlaced], Coroutine[Any, Any, None]], done: asyncio.Event
) -> AsyncIterator[None]:
    """Consume until ``done`` is set, or a line on stdin says to stop."""
    bus = RedisEventBus(url, group="consumer", lease=2.0)
    bus.subscribe(OrderPlaced, handle, name="count", start="beginning")
    await bus.start()
    _say("ready")
    stopping = asyncio.create_task(_wait_for_line())
    await asyncio.wait({stopping, asyncio.create_task(done.wait())}, return_when=asyncio.FIRST_COMPLETED)
    await bus.drain(timeout=120)
    yield
    await bus.stop()


async def raw_publisher(url: str, events: int, rate: float) -> None:
    # Each call needs its own connection; with more calls than connections, one waits.
    pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=20, timeout=None)
    client: Any = redis.asyncio.Redis.from_pool(pool)
    payloads = [encode_event(event, 1 << 20).payload for event in make_events(0 if rate else events, _KEYS)]
    _set_aside()
    _say("ready")
    await _wait_for_line()
    _say(time.time())

    async def publish(event: OrderPlaced) -> None:
        made_at = event.occurred_at.timestamp()
        await client.xadd("raw", {"e": encode_event(event, 1 << 20).payload, "t": made_at})

    if rate:
        await _paced(publish, events, rate)
    for first in range(0, len(payloads), _PIPELINE):
        pipeline = client.pipeline(transaction=False)
        for payload in payloads[first : first + _PIPELINE]:
            pipeline.xadd("raw", {"e": payload})
        await pipeline.execute()
    await client.aclose()


async def raw_timing_consumer(url: str, events: int, number: float) -> None:
    await raw_consumer(url, events, number)  # it reports delays for entries that carry a time


async def raw_consumer(url: str, events: int, handler_ms: float) -> None:
    client: Any = redis.asyncio.Redis.from_url(url)
    await client.xgroup_create("raw", "g", id="0", mkstream=True)
    _say("ready")
    delays: list[float] = []
    handled = 0
    while handled < events:
        for _, entries in await client.xreadgroup("g", "c", {"raw": ">"}, count=100, block=1000):
            handled += len(entries)
            now = time.time()
            delays += [now - float(fields[b"t"]) for _, fields in entries if b"t" in fields]
            await client.xack("raw", "g", *(entry_id for entry_id, _ in entries))
    _report(handled, delays)
    await client.aclose()


async def faststream_publisher(url: str, events: int, rate: float) -> None:
    broker = importlib.import_module("faststream.redis").RedisBroker(url, logger=None)
    names = OrderPlaced.__struct_fields__[:6]
    made = [dict(zip(names, fields_of(number, _KEYS), strict=True)) for number in range(events)]
    await broker.connect()
    _set_aside()
    _say("ready")
    await _wait_for_line()
    _say(time.time())
    for first in range(0, events, _PIPELINE):
        await asyncio.gather(
            *(broker.publish(event, stream="raw") for event in made[first : first + _PIPELINE])
        )
    await broker.stop()


async def faststream_consumer(url: str, events: int, handler_ms: float) -> None:
    library = importlib.import_module("faststream.redis")
    broker = library.RedisBroker(url, logger=None)
    handled = 0
    done = asyncio.Event()

    async def handle(event: dict[str, Any]) -> None:
        nonlocal handled
        handled += 1
        if handled == events:
            done.set()

    stream = library.StreamSub("raw", group="g", consumer="c", max_records=_PIPELINE)
    broker.subscriber(stream=stream)(handle)
    await broker.start()
    _say("ready")
    await done.wait()
    # An event is finished only when the server has its acknowledgement.
    client: Any = redis.asyncio.Redis.from_url(url)
    while (await client.xpending("raw", "g"))["pending"]:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    _report(handled, [])
    await client.aclose()
    await broker.stop()


def _report(handled: int, delays: list[float]) -> None:
    figures = {"ended": time.time(), "handled": handled}
    if delays:
        delays.sort()
        figures |= {"p50": percentile(delays, 0.5), "p99": percentile(delays, 0.99)}
    _say(json.dumps(figures))


def _set_aside() -> None:
    """Exclude the prepared events from garbage collection, which would traverse them repeatedly."""
    gc.collect()
    gc.freeze()


def _say(text: object) -> None:
    print(text, flush=True)


async def _wait_for_line() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    _role, _url, _events, _number = sys.argv[1:]
    asyncio.run(globals()[_role](_url, int(_events), float(_number)))
