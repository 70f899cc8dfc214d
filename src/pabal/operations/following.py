"""Read a log to its end, and follow it by polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from pabal.errors import CorruptLogError
from pabal.ports.arguments import MAX_POSITION
from pabal.ports.operations import EventFilter, EventView, OperationsSource

_PAGE = 500


async def read_to_end(
    source: OperationsSource,
    wanted: EventFilter,
    after: str | None,
    limit: int | None = None,
    on_damage: Callable[[CorruptLogError], None] | None = None,
) -> AsyncGenerator[EventView, None]:
    """Iterate over matching events with their payloads, oldest first, up to the current end of the log.

    Cursors are positions. At a damaged event it raises CorruptLogError, or calls ``on_damage`` with it and
    passes over the event.
    """
    remaining = limit
    damage: CorruptLogError | None = None
    upto = MAX_POSITION
    while remaining is None or remaining > 0:
        size = _PAGE if remaining is None else min(_PAGE, remaining)
        before = None if damage is None else str(upto)
        try:
            page = await source.events(
                wanted, before=before, after=after, limit=size, payloads=True, oldest_first=True
            )
        except CorruptLogError as error:
            if on_damage is None or error.position is None or error.position >= upto:
                raise
            # Of a page with a damaged event nothing is returned: read up to that event.
            damage, upto = error, error.position
            continue
        for event in page:
            yield event
        remaining = None if remaining is None else remaining - len(page)
        if len(page) == size:
            after = page[-1].cursor
        elif damage is not None and on_damage is not None:
            on_damage(damage)
            after, damage, upto = str(upto), None, MAX_POSITION
        else:
            return


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
