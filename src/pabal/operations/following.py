"""Read a log to its end, and follow it by polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from pabal.ports.operations import CutShort, EventFilter, EventView, OperationsSource

_PAGE = 500


async def read_on(
    source: OperationsSource, wanted: EventFilter, after: str | None, limit: int | None = None
) -> AsyncGenerator[EventView, None]:
    """Iterate over matching events with their payloads, oldest first, up to the current end of the log."""
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        page = await source.events(
            wanted, before=None, after=after, limit=size, payloads=True, oldest_first=True
        )
        for event in page:
            yield event
        if isinstance(page, CutShort):
            after = page.at
        elif len(page) < size:
            return
        else:
            after = page[-1].cursor
        left = None if left is None else left - len(page)


async def poll(
    source: OperationsSource,
    newest: Callable[[], Awaitable[str]],
    wanted: EventFilter,
    after: str | None,
    every: float,
) -> AsyncGenerator[EventView, None]:
    """Iterate over matching events as they enter the log, forever; without ``after``, only new ones.

    ``newest`` returns the cursor of the log's current end.
    """
    if after is None:
        after = await newest()
    while True:
        # Continue from the head even if nothing matched, so that no event is searched twice.
        head = await newest()
        if head != after:
            async for event in read_on(source, wanted, after):
                yield event
                head = max(head, event.cursor, key=_rank)
            after = head
        await asyncio.sleep(every)


def _rank(cursor: str) -> tuple[int, str]:
    return (len(cursor), cursor)
