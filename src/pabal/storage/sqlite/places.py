"""Find places in the log: by time, and those that the file keeps for itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pabal.domain.envelope import to_microseconds
from pabal.errors import CorruptLogError
from pabal.storage.sqlite.statements import statements


def read_number(connection: Any, path: str, name: str) -> int:
    """Return a number that the file keeps for itself. Raises CorruptLogError where it has lost it."""
    row = connection.execute(statements()[name]).fetchone()
    if row is None or not isinstance(row[0], int):
        raise CorruptLogError(path=path, position=None, reason=f"the table meta has lost {name}")
    return row[0]


def first_recorded_since(connection: Any, moment: datetime | int) -> int | None:
    """Return the first position recorded at or after a time (or microseconds); None if all are older.

    Found by halving: the writer sees that the times of the log never go back.
    """
    since = moment if isinstance(moment, int) else to_microseconds(moment)
    sql = statements()["recorded_from"]
    first = connection.execute(statements()["first"]).fetchone()[0]
    if first is None:
        return None
    low, high = first, connection.execute(statements()["head"]).fetchone()[0] + 1
    while low < high:
        middle = (low + high) // 2
        position, recorded_at = connection.execute(sql, (middle,)).fetchone()
        if recorded_at >= since:
            high = middle
        else:
            low = position + 1
    found = connection.execute(sql, (low,)).fetchone()
    return None if found is None else int(found[0])


def check_gap(connection: Any, path: str, expected: int, found: int) -> None:
    """Raise CorruptLogError where positions are missing that were not trimmed, as only first ones are."""
    first = connection.execute(statements()["first"]).fetchone()[0]
    if first < found:
        raise CorruptLogError(path=path, position=expected, reason=f"the next event is at {found}")
