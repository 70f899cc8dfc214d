"""Answer queries about a log without indexes, by reading it from start to end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Protocol

from pabal.domain.envelope import Envelope, StoredRecord, decode_event, from_microseconds, to_envelope
from pabal.domain.event import body_of
from pabal.domain.registry import registry
from pabal.ports.arguments import check_bounds
from pabal.ports.storage import Page

_PAGE = 256


class Readable(Protocol):
    """A log that can be read page by page."""

    async def read_page(self, after: int, *, limit: int, types: Iterable[str] | None = None) -> Page:
        """Read up to ``limit`` rows above ``after``."""
        ...


async def rows_of(log: Readable, after: int = 0) -> AsyncIterator[StoredRecord]:
    """Iterate over the rows above a position."""
    while True:
        page = await log.read_page(after, limit=_PAGE)
        for row in page.rows:
            yield row
        if page.upto == after:
            return
        after = page.upto


async def read(
    log: Readable, after: int = 0, types: Iterable[Any] | None = None, limit: int | None = None
) -> AsyncIterator[Envelope]:
    """Iterate over up to ``limit`` envelopes above a position, of all types or of ``types``."""
    names = None
    if types is not None:
        names = {kind if isinstance(kind, str) else registry.schema_of(kind).event_type for kind in types}
    check_bounds(limit or 0, after=after)
    left = -1 if limit is None else limit
    if left == 0:
        return
    async for row in rows_of(log, after):
        if names is None or row.event_type in names:
            yield to_envelope(row)
            left -= 1
            if left == 0:
                return


async def by_id(log: Readable, event_id: bytes) -> Any:
    """Return the event with an id, or None."""
    async for row in rows_of(log):
        if row.event_id == event_id:
            return body_of(decode_event(row))
    return None


async def by_aggregate(log: Readable, aggregate_id: str, aggregate_type: str | None) -> list[Any]:
    """Return an aggregate's events in publish order."""
    return [
        body_of(decode_event(row))
        async for row in rows_of(log)
        if row.aggregate_id == aggregate_id and aggregate_type in (None, row.aggregate_type or "")
    ]


async def statistics(log: Readable) -> dict[str, Any]:
    """Return event counts by type and aggregate type, and the range of positions and times."""
    by_type: dict[str, int] = {}
    by_aggregate: dict[str, int] = {}
    total = first = last = earliest = latest = 0
    async for row in rows_of(log):
        by_type[row.event_type] = by_type.get(row.event_type, 0) + 1
        if row.aggregate_id is not None:
            kind = row.aggregate_type or ""
            by_aggregate[kind] = by_aggregate.get(kind, 0) + 1
        at = row.occurred_at
        if not total:
            first, earliest, latest = row.position, at, at
        total, last = total + 1, row.position
        earliest, latest = min(earliest, at), max(latest, at)
    return {
        "total_events": total,
        "events_by_type": dict(sorted(by_type.items())),
        "events_by_aggregate": dict(sorted(by_aggregate.items())),
        "first_position": first if total else None,
        "last_position": last if total else None,
        "first_occurred_at": from_microseconds(earliest) if total else None,
        "last_occurred_at": from_microseconds(latest) if total else None,
    }
