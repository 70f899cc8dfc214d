"""Create large logs, using the bus's own storage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.events import make_events
from benchmarks.harness import progress
from pabal import SqliteEventStorage

_CHUNK = 10_000


async def fill(path: Path, events: int, *, keys: int, first: int = 0) -> None:
    """Append this many events to a log, with `normal` durability, as only the result matters."""
    storage = SqliteEventStorage(path, durability="normal")
    try:
        for at in range(first, first + events, _CHUNK):
            count = min(_CHUNK, first + events - at)
            await storage.store_events(make_events(count, keys, first=at))
            if at % 500_000 == 0:
                progress(f"filling a log: {at - first:,} of {events:,} events")
    finally:
        await storage.aclose()
    progress("")


def names(count: int) -> Sequence[str]:
    """Return names for subscriptions."""
    return [f"subscription-{number}" for number in range(count)]
