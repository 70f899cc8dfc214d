"""Find events by type, aggregate, chain of causes and time, without reading the log from end to end."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

import msgspec

from pabal.domain.envelope import StoredRecord, id_to_bytes, verify
from pabal.errors import InvalidEventError, UsageError
from pabal.ports.arguments import check_bounds
from pabal.ports.storage import LogFilter
from pabal.storage.sqlite.places import first_recorded_since, read_number
from pabal.storage.sqlite.statements import numbered, statements

_COLUMNS = ", ".join(f"e.{column}" for column in StoredRecord._fields)


_JOINED = "CROSS JOIN events e ON e.position = d.position"
"""``CROSS`` keeps SQLite from beginning with the other table."""


class _Condition(NamedTuple):
    sql: str
    values: tuple[Any, ...]


class _Source(NamedTuple):
    """Name what to read from, the order in which it lies there, and which part of it."""

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

    The indexes are built behind the commits, so each question is put twice: to an index, and to the rows
    that it does not hold yet. Positions are found from times by halving, for neither ever goes back.
    """
    if wanted.aggregate_type is not None and wanted.aggregate_id is None:
        raise UsageError("aggregate_type alone is not indexed; give aggregate_id too, or filter by types")
    check_bounds(limit, after=after, before=before or 0)
    # One transaction, so that what moves into the index meanwhile is neither missed nor seen twice.
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
    """Return the positions strictly between which to look."""
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
    """Choose the index that leaves fewest rows to look at, and say which parts of it.

    Each part holds its rows in the order of the log. Of several at once SQLite would sort all there are
    before the first is out, and a page of a long stream or chain would cost as much as the whole of it.
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
    """Return a stream by version, which is how its index lies, and in which positions ascend too."""
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
    """Return the lowest version of a stream that lies at a position or above it, found by halving."""
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
    """Return what bears a correlation id, and the event that the chain is named after."""
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
    """Return everything a row must fulfil, whichever index it comes from."""
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
        return None  # a correlation id may be any text; only a chain's root is named by an event id
    row = connection.execute(statements()["position_of"], (raw,)).fetchone()
    return None if row is None else int(row[0])
