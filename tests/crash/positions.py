"""A reader that follows the log while many tasks publish."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

from pabal import SqliteEventStorage
from pabal.domain.envelope import decode_event
from tests.crash.events import Step

PUBLISHERS = 50
AT_ONCE = 20


async def read_while_publishing(path: Path, events: int) -> list[str]:
    """Publish events from 50 tasks and read them meanwhile; return what was out of order."""
    committed: list[int] = []
    seen: list[tuple[int, str, int]] = []
    wrong: list[str] = []
    each = events // PUBLISHERS
    async with SqliteEventStorage(path, durability="normal") as storage, SqliteEventStorage(path) as other:
        storage.add_listener(
            lambda batch: committed.extend(range(batch.first, batch.first + len(batch.events)))
        )
        done = False

        async def publish(number: int) -> list[int]:
            positions: list[int] = []
            for first in range(0, each, AT_ONCE):
                steps = [Step(f"p{number}", n) for n in range(first, min(each, first + AT_ONCE))]
                positions += await storage.store_events(steps)
            return positions

        async def read() -> None:
            after = 0
            while not done or after < events:
                # Read through a separate storage, as another process does.
                page = await other.read_page(after, limit=500)
                if [row.position for row in page.rows] != list(range(after + 1, page.upto + 1)):
                    wrong.append(f"after {after} came {[row.position for row in page.rows]}")
                for row in page.rows:
                    event: Any = decode_event(row)
                    seen.append((row.position, event.key, event.number))
                after = page.upto
                await asyncio.sleep(0)

        reading = asyncio.ensure_future(read())
        given = await asyncio.gather(*(publish(number) for number in range(PUBLISHERS)))
        done = True
        await reading
    if committed != list(range(1, events + 1)):
        wrong.append("listeners got other positions, or in another order")
    if [position for position, _, _ in seen] != committed:
        wrong.append("the reader saw other positions than were committed, or in another order")
    wrong += [
        f"publisher {n}: {positions}" for n, positions in enumerate(given) if positions != sorted(positions)
    ]
    by_publisher: dict[str, list[int]] = defaultdict(list)
    for _, key, number in seen:
        by_publisher[key].append(number)
    wrong += [key for key, numbers in by_publisher.items() if numbers != list(range(each))]
    return wrong
