"""Find events by type, aggregate, correlation id and time without scanning the whole log."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

import msgspec

from pabal.domain.envelope import StoredRecord, id_to_bytes, verify
from pabal.errors import InvalidEventError
from pabal.ports.arguments import check_bounds
from pabal.ports.storage import LogFilter
from pabal.storage.sqlite.places import first_recorded_since, read_number
from pabal.storage.sqlite.statements import numbered, statements

_COLUMNS = ", ".join(f"e.{column}" for column in StoredRecord._fields)
_JOINED = "CROSS JOIN events e ON e.position = d.position"
"""``CROSS JOIN`` makes SQLite start from the index table ``d``, not from ``events``."""


class _Condition(NamedTuple):
    sql: str
    values: tuple[Any, ...]


class _Source(NamedTuple):
    """Tables to read from, the column by which they are ordered, and the conditions that select a part."""

    tables: str
    order: str
    conditions: list[_Condition]


def find_events(
    connection: sqlite3.Connection,
    path: str,
    wanted: LogFilter,
    after: int,
    before: int | None,
    limit: int,
    newest_first: bool,
) -> list[StoredRecord]:
    """Return up to ``limit`` verified rows that match, strictly between two positions.

    The index tables are built after the commits, so every search has two parts: the indexed rows, and the
    rows not indexed yet. Times become positions by binary search, because recording times never decrease.
    """
    check_bounds(limit, after=after, before=before or 0)
    # One transaction, so that rows indexed in between are neither missed nor found twice.
    connection.execute("BEGIN")
    try:
        low, high = _bounds(connection, wanted, after, before)
        indexed = read_number(connection, path, "indexed_upto")
        parts = [(low, min(high, indexed + 1), True), (max(low, indexed), high, False)]
        if newest_first:
            parts.reverse()
        rows: list[StoredRecord] = []
        for above, below, is_indexed in parts:
            if above + 1 < below and len(rows) < limit:
                between = (above, below)
                rows += _part(connection, wanted, between, limit - len(rows), newest_first, is_indexed)
    finally:
        connection.execute("COMMIT")
    for row in rows:
        verify(row, path)
    return rows


def _bounds(
    connection: sqlite3.Connection, wanted: LogFilter, after: int, before: int | None
) -> tuple[int, int]:
    """Return the two positions strictly between which to search."""
    head: int = connection.execute(statements()["head"]).fetchone()[0]
    low, high = max(0, after), head + 1 if before is None else min(before, head + 1)
    if wanted.since is not None:
        first = first_recorded_since(connection, wanted.since)
        low = max(low, head if first is None else first - 1)
    if wanted.until is not None:
        first = first_recorded_since(connection, wanted.until)
        high = min(high, head + 1 if first is None else first)
    return low, high


def _part(
    connection: sqlite3.Connection,
    wanted: LogFilter,
    between: tuple[int, int],
    limit: int,
    newest_first: bool,
    is_indexed: bool,
) -> list[StoredRecord]:
    sources = _sources(connection, wanted, between) if is_indexed else [_whole(between)]
    rows: list[StoredRecord] = []
    for source in sources:
        rows += _select(connection, wanted, source, limit, newest_first)
    return sorted(rows, reverse=newest_first)[:limit]


def _select(
    connection: sqlite3.Connection, wanted: LogFilter, source: _Source, limit: int, newest_first: bool
) -> list[StoredRecord]:
    conditions = [*source.conditions, *_conditions(connection, wanted)]
    where = " AND ".join(condition.sql for condition in conditions)
    values = [value for condition in conditions for value in condition.values]
    order = "DESC" if newest_first else "ASC"
    sql = f"SELECT {_COLUMNS} FROM {source.tables} WHERE {where} ORDER BY {source.order} {order} LIMIT ?"
    return [StoredRecord._make(row) for row in connection.execute(sql, (*values, limit))]


def _sources(connection: sqlite3.Connection, wanted: LogFilter, between: tuple[int, int]) -> list[_Source]:
    """Choose the index that leaves the fewest rows to look at, and return the parts of it to read.

    Each part has its rows in the order of the log. If one query read several parts, SQLite would have to sort
    all their rows before returning the first, and one page of a long stream would cost as much as all of it.
    """
    if wanted.aggregate_id is not None:
        kinds = [wanted.aggregate_type]
        if wanted.aggregate_type is None:
            kinds = [
                kind
                for (kind,) in connection.execute(statements()["stream_types"], numbered(wanted.aggregate_id))
            ]
        return [_stream(connection, (wanted.aggregate_id, kind), between) for kind in kinds]
    if wanted.correlation_id is not None:
        return _chain(connection, wanted.correlation_id, between)
    if not wanted.types:
        return [_whole(between)]
    lies_between = _Condition("d.position > ? AND d.position < ?", between)
    return [
        _Source(
            f"events_by_type d {_JOINED}",
            "d.position",
            [_Condition("d.event_type = ?", (name,)), lies_between],
        )
        for name in sorted(set(wanted.types))
    ]


def _whole(between: tuple[int, int]) -> _Source:
    return _Source("events e", "e.position", [_Condition("e.position > ? AND e.position < ?", between)])


def _stream(
    connection: sqlite3.Connection, stream: tuple[str, str | None], between: tuple[int, int]
) -> _Source:
    """Return one stream's part of the index, ordered by version; its positions ascend with the versions."""
    above, below = between
    versions = (
        _version_from(connection, stream, above + 1),
        _version_from(connection, stream, below),
    )
    of_stream = _Condition("d.aggregate_id = ? AND d.aggregate_type = ?", stream)
    return _Source(
        f"streams d {_JOINED}",
        "d.version",
        [of_stream, _Condition("d.version >= ? AND d.version < ?", versions)],
    )


def _version_from(connection: sqlite3.Connection, stream: tuple[str, str | None], position: int) -> int:
    """Return a stream's lowest version whose position is ``position`` or higher, by binary search."""
    low, last = connection.execute(statements()["stream_ends"], numbered(*stream)).fetchone()
    if last is None:
        return 0
    high: int = last + 1
    while low < high:
        middle = (low + high) // 2
        version, at = connection.execute(statements()["stream_version_from"], (*stream, middle)).fetchone()
        if at < position:
            low = version + 1
        else:
            high = middle
    return int(low)


def _chain(connection: sqlite3.Connection, correlation_id: str, between: tuple[int, int]) -> list[_Source]:
    """Return the events with a correlation id, and the root event whose own id it is."""
    of_chain = _Condition(
        "d.correlation_id = ? AND d.position > ? AND d.position < ?", (correlation_id, *between)
    )
    sources = [_Source(f"events_by_correlation d {_JOINED}", "d.position", [of_chain])]
    root = _position_of(connection, correlation_id)
    if root is not None and between[0] < root < between[1]:
        alone = _Condition("e.position = ? AND e.correlation_id IS NOT ?", (root, correlation_id))
        sources.append(_Source("events e", "e.position", [alone]))
    return sources


def _conditions(connection: sqlite3.Connection, wanted: LogFilter) -> list[_Condition]:
    """Return all conditions that a row must meet, whichever index it comes from."""
    found: list[_Condition] = []
    if wanted.types:
        names = msgspec.json.encode(wanted.types).decode()
        found.append(_Condition("e.event_type IN (SELECT value FROM json_each(?))", (names,)))
    if wanted.aggregate_id is not None:
        found.append(_Condition("e.aggregate_id = ?", (wanted.aggregate_id,)))
    if wanted.aggregate_type is not None:
        found.append(_Condition("coalesce(e.aggregate_type, '') = ?", (wanted.aggregate_type,)))
    if wanted.correlation_id is not None:
        root = _position_of(connection, wanted.correlation_id)
        chain = (wanted.correlation_id, -1 if root is None else root)
        found.append(_Condition("(e.correlation_id = ? OR e.position = ?)", chain))
    if wanted.causation_id is not None:
        found.append(_Condition("e.causation_id = ?", (wanted.causation_id,)))
    return found


def _position_of(connection: sqlite3.Connection, event_id: str) -> int | None:
    try:
        raw = id_to_bytes(event_id)
    except InvalidEventError:
        return None  # a correlation id may be any text; only if it is an event id does it have a root event
    row = connection.execute(statements()["position_of"], (raw,)).fetchone()
    return None if row is None else int(row[0])
