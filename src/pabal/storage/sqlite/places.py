"""Find positions in the log by time, read those noted in the table ``meta``, and check gaps."""

from __future__ import annotations

from datetime import datetime

from pabal.domain.envelope import to_microseconds
from pabal.errors import CorruptLogError
from pabal.storage.sqlite.connection import Connection
from pabal.storage.sqlite.statements import statements


def read_number(connection: Connection, path: str, name: str) -> int:
    """Return a number stored in the table ``meta``. Raises CorruptLogError if it is missing."""
    row = connection.execute(statements()[name]).fetchone()
    if row is None or not isinstance(row[0], int):
        raise CorruptLogError(path=path, position=None, reason=f"the table meta lacks {name}")
    return row[0]


def first_recorded_since(connection: Connection, moment: datetime | int) -> int | None:
    """Return the first position recorded at or after a time; None if all are older.

    ``moment`` is a datetime or microseconds since 1970. Uses binary search: the writer ensures that the
    recording times never decrease.
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


def check_gap(connection: Connection, path: str, expected: int, found: int) -> None:
    """Raise CorruptLogError for missing positions, unless they were trimmed: the log begins after those."""
    first = connection.execute(statements()["first"]).fetchone()[0]
    if first < found:
        raise CorruptLogError(path=path, position=expected, reason=f"the next event is at {found}")
