"""Copy projections into a rebuilt file: their tables, indexes and triggers, and the position of each."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from pabal.storage.sqlite.faults import is_fault
from pabal.storage.sqlite.statements import statements

_ROWIDS = ("rowid", "_rowid_", "oid")
_log = logging.getLogger("pabal")


class _UnsoundError(Exception):
    """Tables of a projection cannot be copied completely; the message is the reason."""


def copy_projections(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Copy each projection's tables, live ones and those of a rebuild under way, with their positions.

    Runs inside open transactions on both connections, so tables and positions are of one moment. If a
    projection's tables cannot be copied completely, they are left out together with their position and a
    warning is logged; the projection builds them again at its next start.
    """
    found = source.execute(statements()["has_projections"]).fetchone()
    if found is None:
        return
    target.execute(found[0])
    try:
        for generation in list(_rows(source, statements()["generations"])):
            _copy_generation(source, target, generation)
    except _UnsoundError as error:
        _warn(source, "every projection", error)


def _copy_generation(
    source: sqlite3.Connection, target: sqlite3.Connection, generation: tuple[Any, ...]
) -> None:
    name, number, _, _, is_live, tables = generation
    target.execute("SAVEPOINT projection")
    try:
        for table in tables.split():
            _copy_table(source, target, table if is_live else f"{table}__{number}")
        target.execute(statements()["insert_generation"], generation)
    except (_UnsoundError, UnicodeError, sqlite3.Error) as error:
        if is_fault(error):
            raise  # the new file is in trouble, for example because the disk is full
        target.execute("ROLLBACK TO projection")
        _warn(source, f"projection {name!r}" + ("" if is_live else " (rebuild)"), error)
    target.execute("RELEASE projection")


def _copy_table(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> None:
    """Copy a table's rows in order, then create its indexes and triggers: no trigger runs for the copies."""
    made = list(_rows(source, statements()["made_for_table"], (table,)))
    if not made or made[0][0] != "table":
        raise _UnsoundError(f"its table {table} is gone")
    target.execute(made[0][1])
    names = _columns(source, table)
    columns, places = ", ".join(names), ", ".join("?" * len(names))
    # NOT INDEXED, because an index may be damaged.
    rows = _rows(source, f"SELECT {columns} FROM {_quoted(table)} NOT INDEXED")
    target.executemany(f"INSERT INTO {_quoted(table)} ({columns}) VALUES ({places})", rows)
    for _, sql in made[1:]:
        target.execute(sql)
    note_last_number(target, table, _rows(source, statements()["autoincrement"], (table,)))


def note_last_number(target: sqlite3.Connection, table: str, found: Iterable[tuple[int]]) -> None:
    """Note the last number that a table with AUTOINCREMENT has given, so that none is given twice."""
    for (last,) in found:
        target.execute(statements()["forget_autoincrement"], (table,))
        target.execute(statements()["set_autoincrement"], (table, last))


def _columns(source: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns to copy: the rowid, unless hidden or absent, and all that are not generated."""
    names = [name for (name,) in _rows(source, statements()["stored_columns"], (table,))]
    known = {name.lower() for name in names}
    number = next((alias for alias in _ROWIDS if alias not in known), None)
    columns = [_quoted(name) for name in names]
    if number is None:
        return columns
    try:
        source.execute(f"SELECT {number} FROM {_quoted(table)} LIMIT 0").close()
    except sqlite3.OperationalError:
        return columns  # a table WITHOUT ROWID
    return [number, *columns]


def _rows(
    source: sqlite3.Connection, sql: str, parameters: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, ...]]:
    try:
        yield from source.execute(sql, parameters)
    except (sqlite3.Error, UnicodeError) as error:
        raise _UnsoundError(str(error)) from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _warn(source: sqlite3.Connection, whose: str, reason: Exception) -> None:
    first = source.execute(statements()["first"]).fetchone()[0]
    then = "its next start rebuilds them"
    if first is not None and first > 1:
        then = f"they cannot be rebuilt because the log begins at position {first}"
    _log.warning("a rebuilt file lacks the tables of %s (%s): %s", whose, reason, then)
