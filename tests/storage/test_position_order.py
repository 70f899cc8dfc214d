"""Positions are the order of commits, whoever publishes and whoever looks meanwhile."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

from pabal import SqliteEventStorage
from pabal.domain.envelope import decode_event
from tests.bus.support import FULL
from tests.storage.events import Tick

PUBLISHERS = 50
EVENTS = 1_000_000 if FULL else 5_000
AT_ONCE = 20


async def test_a_reader_never_sees_a_lower_position_after_a_higher_one(path: Path) -> None:
    """Promise 15. A subscription that has passed a position would never come back to it."""
    committed: list[int] = []
    seen: list[tuple[int, str, int]] = []
    each = EVENTS // PUBLISHERS
    async with SqliteEventStorage(path, durability="normal") as storage, SqliteEventStorage(path) as other:
        storage.add_listener(
            lambda batch: committed.extend(range(batch.first, batch.first + len(batch.events)))
        )
        done = False

        async def publish(number: int) -> list[int]:
            positions: list[int] = []
            for first in range(0, each, AT_ONCE):
                events = [Tick(f"p{number}", n) for n in range(first, min(each, first + AT_ONCE))]
                positions += await storage.store_events(events)
            return positions

        async def read() -> None:
            after = 0
            while not done or after < EVENTS:
                # By a connection of its own, as another process has it.
                page = await other.read_page(after, limit=500)
                assert [row.position for row in page.rows] == list(range(after + 1, page.upto + 1))
                for row in page.rows:
                    event: Any = decode_event(row)
                    seen.append((row.position, event.symbol, event.number))
                after = page.upto
                await asyncio.sleep(0)

        reading = asyncio.ensure_future(read())
        given = await asyncio.gather(*(publish(number) for number in range(PUBLISHERS)))
        done = True
        await reading
    assert committed == list(range(1, EVENTS + 1))
    assert [position for position, _, _ in seen] == committed
    assert all(positions == sorted(positions) for positions in given)
    by_publisher: dict[str, list[int]] = defaultdict(list)
    for _, symbol, number in seen:
        by_publisher[symbol].append(number)
    assert all(numbers == list(range(each)) for numbers in by_publisher.values())
