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
from pabal.storage.sqlite.statements import statements

_COLUMNS = ", ".join(f"e.{column}" for column in StoredRecord._fields)


_JOINED = "CROSS JOIN events e ON e.position = d.position"
"""``CROSS`` keeps SQLite from beginning with the other table."""


class _Condition(NamedTuple):
    sql: str
    values: tuple[Any, ...]


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
    if not is_indexed:
        return _select(connection, wanted, "events e", "e.position", [], between, limit, newest_first)
    by_type = wanted.aggregate_id is None and wanted.correlation_id is None and len(wanted.types) > 0
    if not by_type:
        source, place, driven = _source(connection, wanted)
        return _select(connection, wanted, source, place, driven, between, limit, newest_first)
    rows: list[StoredRecord] = []
    for name in sorted(set(wanted.types)):
        # Each type by itself: of several at once SQLite would sort all there are before the first is out.
        driven = [_Condition("d.event_type = ?", (name,))]
        source = f"events_by_type d {_JOINED}"
        rows += _select(connection, wanted, source, "d.position", driven, between, limit, newest_first)
    return sorted(rows, reverse=newest_first)[:limit]


def _select(
    connection: sqlite3.Connection,
    wanted: LogFilter,
    source: str,
    place: str,
    driven: list[_Condition],
    between: tuple[int, int],
    limit: int,
    newest_first: bool,
) -> list[StoredRecord]:
    conditions = [_Condition(f"{place} > ? AND {place} < ?", between), *driven]
    conditions += _conditions(connection, wanted)
    where = " AND ".join(condition.sql for condition in conditions)
    values = [value for condition in conditions for value in condition.values]
    order = "DESC" if newest_first else "ASC"
    sql = f"SELECT {_COLUMNS} FROM {source} WHERE {where} ORDER BY {place.lstrip('+')} {order} LIMIT ?"
    return [StoredRecord._make(row) for row in connection.execute(sql, (*values, limit))]


def _source(connection: sqlite3.Connection, wanted: LogFilter) -> tuple[str, str, list[_Condition]]:
    """Choose the index that leaves fewest rows to look at, and say which part of it."""
    if wanted.aggregate_id is not None:
        driven = [_Condition("d.aggregate_id = ?", (wanted.aggregate_id,))]
        if wanted.aggregate_type is not None:
            driven.append(_Condition("d.aggregate_type = ?", (wanted.aggregate_type,)))
        return f"streams d {_JOINED}", "d.position", driven
    if wanted.correlation_id is not None:
        root = _position_of(connection, wanted.correlation_id)
        chain = "SELECT position FROM events_by_correlation WHERE correlation_id = ? UNION ALL SELECT ?"
        of_chain = _Condition(f"e.position IN ({chain})", (wanted.correlation_id, root))
        return "events e", "+e.position", [of_chain]  # the plus keeps SQLite from walking the range instead
    return "events e", "e.position", []


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
