"""Translate an operator's filters into queries that the log answers through its indexes."""

from __future__ import annotations

from datetime import datetime

from pabal.domain.envelope import StoredRecord, to_microseconds
from pabal.operations.filters import types_matching
from pabal.ports.inspection import InspectableStorage
from pabal.ports.operations import EventFilter
from pabal.ports.storage import LogFilter

_SCAN_PAGE = 1000


async def position_at(storage: InspectableStorage, moment: datetime, first: int, head: int) -> int:
    """Return the lowest position that entered the log at a time or later; above ``head`` if there is none.

    A binary search: about twenty small reads in a log of a million events.
    """
    wanted = to_microseconds(moment)
    low, high = first, head + 1
    while low < high:
        middle = (low + high) // 2
        page = await storage.read_page(middle - 1, limit=1)
        if page.rows and page.rows[0].recorded_at < wanted:
            low = page.rows[0].position + 1
        else:
            high = middle
    return low


async def find_rows(
    storage: InspectableStorage,
    wanted: EventFilter,
    *,
    before: int | None,
    after: int | None,
    limit: int,
    oldest_first: bool,
) -> list[StoredRecord]:
    """Return up to ``limit`` matching rows between two positions, oldest or newest first."""
    only_type = wanted.aggregate_type if wanted.aggregate_id is None else None
    types = wanted.types
    if types or only_type is not None:
        types = types_matching(types or ("*",), await storage.list_event_types())
        if only_type is not None:
            types = await _types_with_aggregate(storage, types, only_type)
        if not types:
            return []
    log_filter = LogFilter(
        types=types,
        aggregate_id=wanted.aggregate_id,
        aggregate_type=wanted.aggregate_type if wanted.aggregate_id is not None else None,
        correlation_id=wanted.correlation_id,
        causation_id=wanted.causation_id,
        since=wanted.since,
        until=wanted.until,
    )
    found: list[StoredRecord] = []
    while len(found) < limit:
        size = limit if only_type is None else _SCAN_PAGE
        rows = await storage.find_events(
            log_filter, after=after or 0, before=before, limit=size, newest_first=not oldest_first
        )
        found += rows if only_type is None else [row for row in rows if row.aggregate_type == only_type]
        if len(rows) < size:
            break
        if oldest_first:
            after = rows[-1].position
        else:
            before = rows[-1].position
    return found[:limit]


async def _types_with_aggregate(
    storage: InspectableStorage, types: tuple[str, ...], aggregate_type: str
) -> tuple[str, ...]:
    """Return those event types whose first or last event belongs to an aggregate of this type.

    There is no index by aggregate type alone, but the events of one type nearly always belong to aggregates
    of one type. Without this, searching for an aggregate type that does not occur would scan the whole log.
    """
    found: list[str] = []
    for name in types:
        for newest_first in (False, True):
            rows = await storage.find_events(LogFilter(types=(name,)), limit=1, newest_first=newest_first)
            if rows and rows[0].aggregate_type == aggregate_type:
                found.append(name)
                break
    return tuple(found)
