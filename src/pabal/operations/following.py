"""Read a log to its end, and follow it by polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from pabal.ports.operations import CutShort, EventFilter, EventView, OperationsSource

_PAGE = 500


async def read_to_end(
    source: OperationsSource, wanted: EventFilter, after: str | None, limit: int | None = None
) -> AsyncGenerator[EventView, None]:
    """Iterate over matching events with their payloads, oldest first, up to the current end of the log."""
    remaining = limit
    while remaining is None or remaining > 0:
        size = _PAGE if remaining is None else min(_PAGE, remaining)
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
        remaining = None if remaining is None else remaining - len(page)


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
            async for event in read_to_end(source, wanted, after):
                yield event
                head = max(head, event.cursor, key=_cursor_order)
            after = head
        await asyncio.sleep(every)


def _cursor_order(cursor: str) -> tuple[int, str]:
    return (len(cursor), cursor)
