"""The named statements of the files in ``sql``."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

_FILES = ("log.sql", "subscriptions.sql", "dead_letters.sql", "care.sql", "operators.sql")


def _text(name: str) -> str:
    return files("pabal.storage.sqlite").joinpath("sql", name).read_text("utf-8")


@cache
def statements() -> dict[str, str]:
    """Return every named statement; read once."""
    found: dict[str, str] = {}
    for block in (block for file in _FILES for block in _text(file).split("-- name: ")[1:]):
        name, _, body = block.partition("\n")
        found[name.strip()] = body.strip()
    return found


def numbered(*values: Any) -> dict[str, Any]:
    """Return the values of a statement that numbers its parameters (?1, ?2, …).

    To sqlite3 these are names, and from Python 3.12 on it warns about a sequence for them.

    >>> numbered("book", 7)
    {'1': 'book', '2': 7}
    """
    return {str(number): value for number, value in enumerate(values, start=1)}


def schema_script() -> str:
    """Return the script that makes an empty database a pabal database."""
    return _text("schema.sql")


def migration_script(version: int) -> str:
    """Return the script that brings a database from a version to the next one."""
    return _text(f"v{version}_to_v{version + 1}.sql")


INSERT_SIZES = tuple(
    sorted({1, 2, 3} | {step << shift for shift in range(9) for step in (4, 5, 6, 7)} | {2048}, reverse=True)
)
"""Rows per INSERT statement, largest first: four sizes for each power of two, so few make up any number."""

COLUMNS = 14
_ROW = "(" + ",".join("?" * COLUMNS) + ")"


@cache
def insert_events(rows: int) -> str:
    """Return the statement that inserts ``rows`` events at once.

    ``sqlite3`` gives up the interpreter's lock around every step of a statement. With a busy event loop
    each taking back may cost a switch interval (5 ms), so 100 rows by ``executemany`` took 123 ms and by
    statements of 50 rows 17 ms; on an idle loop both are equal.
    """
    return statements()["insert_events"] + " " + ",".join([_ROW] * rows)
