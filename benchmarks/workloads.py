"""Three small fixed workloads, and one to gauge the interpreter by, for counting instructions.

Run as ``python -m benchmarks.workloads NAME EVENTS``; nothing is printed or timed. The same few events are
used again and again, so that making them does not count. The workers are given a clock of their own: by the
machine's they would take smaller slices where it is slow, and the counts would follow its speed.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import cycle, islice
from typing import NamedTuple

from benchmarks.events import OrderPlaced, counting_handler, make_events
from benchmarks.harness import expect_handled
from pabal import InMemoryEventBus
from pabal.delivery import worker
from pabal.domain.envelope import StoredRecord, checksum_at, decode_event, encode_event, verify

_KEYS = 100
_BATCH = 100
_MAX_PAYLOAD = 1 << 20
_STEP = 10e-6
"""How far the workers' clock goes on at each look, in seconds: far below a turn, so that slices are full."""


def events_again_and_again(number: int) -> Iterator[OrderPlaced]:
    """Return so many events, of which only 1,000 are made."""
    return islice(cycle(make_events(1_000, _KEYS)), number)


async def publish(events: int) -> None:
    """Publish events one by one to one handler, in memory."""
    handle, count = counting_handler()
    bus = InMemoryEventBus()
    bus.subscribe(OrderPlaced, handle, name="handler")
    async with bus:
        for event in events_again_and_again(events):
            await bus.publish(event)
    expect_handled("publish", count(), events)


async def publish_batch(events: int) -> None:
    """Publish events in batches of 100 to three handlers, in memory."""
    bus = InMemoryEventBus()
    counts = []
    for number in range(3):
        handle, count = counting_handler()
        counts.append(count)
        bus.subscribe(OrderPlaced, handle, name=f"handler-{number}")
    again = events_again_and_again(events)
    async with bus:
        for _ in range(events // _BATCH):
            await bus.publish_batch(list(islice(again, _BATCH)))
    expect_handled("publish_batch", sum(count() for count in counts), events * 3)


async def encode_and_decode(events: int) -> None:
    """Turn events into rows of the log and back: what every stored event costs beside SQLite itself."""
    equal = 0
    for position, event in enumerate(events_again_and_again(events), 1):
        record = encode_event(event, _MAX_PAYLOAD)
        checksum = checksum_at(record[10], position, position, 1)
        row = StoredRecord(position, *record[:10], checksum, position, 1)
        verify(row, "")
        equal += decode_event(row) == event
    expect_handled("encode_and_decode", equal, events)


async def gauge(events: int) -> None:
    """Hand events over through a deque for each key; there is no pabal in it."""
    handle, count = counting_handler()
    waiting: dict[str, deque[OrderPlaced]] = {}
    again = events_again_and_again(events)
    for _ in range(events // _BATCH):
        for event in islice(again, _BATCH):
            waiting.setdefault(event.order_id, deque()).append(event)
        for lane in waiting.values():
            while lane:
                await handle(lane.popleft())
    expect_handled("gauge", count(), events)


class Workload(NamedTuple):
    """Name what runs, and how many events make it long enough to be counted within a hundredth."""

    run: Callable[[int], Awaitable[None]]
    events: int


WORKLOADS = {
    "publish": Workload(publish, 20_000),
    "publish_batch": Workload(publish_batch, 10_000),
    "encode_and_decode": Workload(encode_and_decode, 4_000),
    "gauge": Workload(gauge, 50_000),
}


async def _main() -> None:
    await WORKLOADS[sys.argv[1]].run(int(sys.argv[2]))


if __name__ == "__main__":
    # When the collector runs depends on whatever was imported before; without it counts are steadier.
    gc.disable()
    vars(worker)["perf_counter"] = partial(next, itertools.count(0.0, _STEP))
    asyncio.run(_main())
