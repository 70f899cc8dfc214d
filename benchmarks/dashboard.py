"""How long the dashboard's lists take on a large log: ``python -m benchmarks.dashboard``.

Writes a log of five million events (chains of ten, 100,000 aggregates, 20 types) with 20,000 dead letters.
Every address of the API is then asked in process, over ASGI: the server is measured, not a network. The file
is kept with ``--keep FILE`` and used again. Needs the extra ``dashboard`` and httpx.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import httpx

from pabal import DomainEvent, InMemoryEventBus, RetryPolicy, SqliteEventStorage
from pabal.dashboard import create_dashboard

EVENTS = 5_000_000
LETTERS = 20_000
_BATCH = 5_000
_CHAIN = 10
_TIMES = 15


class Moved(DomainEvent):
    """An event of one of the 19 common types; the rare type occurs only at the beginning of the log."""

    event_type: ClassVar[str] = "bench.moved-00"
    aggregate_type: ClassVar[str] = "parcel"
    parcel: str
    place: int
    note: str = "left the sorting centre at the usual gate"

    @property
    def aggregate_id(self) -> str:
        return self.parcel


KINDS = [
    Moved,
    *(
        type(f"Moved{n:02}", (Moved,), {"event_type": f"bench.moved-{n:02}", "__module__": __name__})
        for n in range(1, 19)
    ),
]


class Lost(Moved):
    """An event of the rare type."""

    event_type: ClassVar[str] = "bench.lost"


def chain(number: int) -> list[Moved]:
    """Return ten events, each caused by the one before it."""
    parcel = f"parcel-{number % 100_000:06}"
    root = KINDS[number % 19](parcel, 0)
    events = [root]
    for place in range(1, _CHAIN):
        events.append(
            KINDS[(number + place) % 19](
                parcel, place, correlation_id=root.event_id, causation_id=events[-1].event_id
            )
        )
    return events


async def write(file: Path, count: int, letters: int) -> None:
    """Write the log, then run a handler that fails on the first events, for dead letters."""
    started = time.perf_counter()
    async with SqliteEventStorage(file, durability="normal") as storage:
        await storage.store_events([Lost("parcel-000000", n) for n in range(10)])
        for first in range(0, count // _CHAIN, _BATCH // _CHAIN):
            await storage.store_events(
                [event for number in range(first, first + _BATCH // _CHAIN) for event in chain(number)]
            )
        print(f"{await storage.head():,} events in {time.perf_counter() - started:.0f} s")
        bus = InMemoryEventBus(event_storage=storage)

        async def refuse(event: Moved) -> None:
            if event.place == 3:
                raise ValueError(f"{event.parcel} is not known at place {event.place}")

        once = RetryPolicy(max_attempts=1)
        bus.subscribe(Moved, refuse, name="places", start=await storage.head() - letters * _CHAIN, retry=once)
        async with bus:
            await bus.drain()


async def measure(file: Path) -> None:
    """Request every path several times, and print the median and the slowest."""
    async with SqliteEventStorage(file, durability="normal") as storage:
        transport = httpx.ASGITransport(app=create_dashboard(storage))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=300) as http:
            print(f"{'':46}{'median':>9}{'slowest':>9}   ms, {_TIMES} times")
            for path in await addresses(http):
                print_row(path, [await timed(http, path) for _ in range(_TIMES)])


async def addresses(http: Any) -> Sequence[str]:
    """Return the paths to request: each list from its beginning, from deep inside, and with each filter."""
    newest = (await http.get("/api/events")).json()
    middle = newest["head"] or newest["items"][0]["position"]
    deep = (await http.get("/api/events", params={"before": str(middle // 2)})).json()["items"][-1]
    lost = "type=bench.lost"
    root = deep["correlation_id"] or deep["event_id"]
    letter = (await http.get("/api/dead-letters")).json()["items"][0]["id"]
    return [
        "/api/report",
        "/api/series?range=15m",
        "/api/series?range=7d",
        "/api/types",
        "/api/events",
        f"/api/events?before={middle // 2}",
        "/api/events?type=bench.moved-07",
        "/api/events?type=bench.*",
        f"/api/events?{lost}",
        f"/api/events?aggregate=parcel/{deep['aggregate_id']}",
        f"/api/events?correlation={root}",
        "/api/events?since=1h",
        "/api/events?until=2001-01-01",
        f"/api/events?{lost}&since=2001-01-01",
        "/api/events?type=bench.moved-01&aggregate=parcel/parcel-099999",
        f"/api/events/{deep['event_id']}",
        "/api/streams",
        "/api/streams?prefix=parcel-05",
        f"/api/streams/parcel/{deep['aggregate_id']}",
        "/api/dead-letters/groups",
        "/api/dead-letters",
        "/api/dead-letters?error_type=ValueError&subscription=places",
        f"/api/dead-letters/{letter}",
        "/api/audit",
    ]


async def timed(http: Any, path: str) -> float:
    """Return how many milliseconds one response takes."""
    started = time.perf_counter()
    response = await http.get(path)
    assert response.status_code == 200, response.text
    return 1000 * (time.perf_counter() - started)


def print_row(path: str, times: Sequence[float]) -> None:
    """Print one line."""
    shown = path if len(path) <= 45 else path[:44] + "…"
    print(f"{shown:46}{statistics.median(times):9.1f}{max(times):9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--letters", type=int, default=LETTERS)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        file = arguments.keep or Path(temporary) / "large.db"
        if not file.exists():
            asyncio.run(write(file, arguments.events, arguments.letters))
        asyncio.run(measure(file))


if __name__ == "__main__":
    main()
