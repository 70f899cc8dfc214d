"""Three small fixed workloads, and one to gauge the interpreter, for counting instructions.

Run as ``python -m benchmarks.workloads NAME EVENTS``; nothing is printed or timed. The same few events are
reused, so that creating them hardly counts. The workers use a fake clock: with a real one, they would take
smaller slices on a slow machine, and the counts would depend on its speed.
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
"""Seconds by which the workers' clock advances at each reading: so little that their slices are full."""


def repeated_events(number: int) -> Iterator[OrderPlaced]:
    """Return this many events, of which only 1,000 are created."""
    return islice(cycle(make_events(1_000, _KEYS)), number)


async def publish(events: int) -> None:
    """Publish events one by one to one handler, in memory."""
    handle, count = counting_handler()
    bus = InMemoryEventBus()
    bus.subscribe(OrderPlaced, handle, name="handler")
    async with bus:
        for event in repeated_events(events):
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
    repeated = repeated_events(events)
    async with bus:
        for _ in range(events // _BATCH):
            await bus.publish_batch(list(islice(repeated, _BATCH)))
    expect_handled("publish_batch", sum(count() for count in counts), events * 3)


async def encode_and_decode(events: int) -> None:
    """Encode events as log rows and decode them: the cost of every stored event apart from SQLite itself."""
    equal = 0
    for position, event in enumerate(repeated_events(events), 1):
        record = encode_event(event, _MAX_PAYLOAD)
        checksum = checksum_at(record[10], position, position, 1)
        row = StoredRecord(position, *record[:10], checksum, position, 1)
        verify(row, "")
        equal += decode_event(row) == event
    expect_handled("encode_and_decode", equal, events)


async def gauge(events: int) -> None:
    """Hand events over through a deque for each key, without pabal."""
    handle, count = counting_handler()
    queues: dict[str, deque[OrderPlaced]] = {}
    repeated = repeated_events(events)
    for _ in range(events // _BATCH):
        for event in islice(repeated, _BATCH):
            queues.setdefault(event.order_id, deque()).append(event)
        for lane in queues.values():
            while lane:
                await handle(lane.popleft())
    expect_handled("gauge", count(), events)


class Workload(NamedTuple):
    """A workload, and enough events to be counted to within one percent."""

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
    # When the collector runs depends on earlier imports; without it, counts are steadier.
    gc.disable()
    vars(worker)["perf_counter"] = partial(next, itertools.count(0.0, _STEP))
    asyncio.run(_main())
