"""The named SQL statements and scripts in the folder ``sql``."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

_FILES = ("log.sql", "subscriptions.sql", "dead_letters.sql", "schedule.sql", "care.sql", "operators.sql")


def _text(name: str) -> str:
    return files("pabal.storage.sqlite").joinpath("sql", name).read_text("utf-8")


@cache
def statements() -> dict[str, str]:
    """Return the SQL of every statement by its name; the files are read once."""
    found: dict[str, str] = {}
    for block in (block for file in _FILES for block in _text(file).split("-- name: ")[1:]):
        name, _, body = block.partition("\n")
        found[name.strip()] = body.strip()
    return found


def numbered(*values: Any) -> dict[str, Any]:
    """Return the parameters for a statement that numbers its placeholders (?1, ?2, …).

    The sqlite3 module takes such placeholders for names, and warns from Python 3.12 on if given a sequence.

    >>> numbered("book", 7)
    {'1': 'book', '2': 7}
    """
    return {str(number): value for number, value in enumerate(values, start=1)}


def schema_script() -> str:
    """Return the script that creates pabal's schema in an empty database."""
    return _text("schema.sql")


def migration_script(version: int) -> str:
    """Return the script that migrates a database from a schema version to the next one."""
    return _text(f"v{version}_to_v{version + 1}.sql")


INSERT_SIZES = tuple(
    sorted({1, 2, 3} | {step << shift for shift in range(9) for step in (4, 5, 6, 7)} | {2048}, reverse=True)
)
"""Rows per INSERT, largest first: four sizes per power of two, so that few statements insert any number."""

COLUMNS = 14
_ROW = "(" + ",".join("?" * COLUMNS) + ")"


@cache
def insert_events(rows: int) -> str:
    """Return the statement that inserts ``rows`` events at once.

    The sqlite3 module releases the interpreter's lock around every step of a statement. While an event loop
    is busy, getting the lock back may take a switch interval (5 ms): inserting 100 rows took 123 ms with
    ``executemany``, but 17 ms with statements of 50 rows. On an idle loop both take the same time.
    """
    return statements()["insert_events"] + " " + ",".join([_ROW] * rows)
