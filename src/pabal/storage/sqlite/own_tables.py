"""Keep what an application runs in a transaction away from the tables that are pabal's."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from functools import cache
from typing import Any

from pabal.errors import UsageError
from pabal.storage.sqlite.statements import schema_script

_TABLE_AT = {
    sqlite3.SQLITE_INSERT: 0,
    sqlite3.SQLITE_UPDATE: 0,
    sqlite3.SQLITE_DELETE: 0,
    sqlite3.SQLITE_DROP_TABLE: 0,
    sqlite3.SQLITE_ALTER_TABLE: 1,
    sqlite3.SQLITE_DROP_INDEX: 1,
}
"""What changes a table or takes it away, and which argument of the authorizer names it."""


@cache
def own_tables() -> frozenset[str]:
    """Return the names of the tables that pabal makes in every file."""
    return frozenset(re.findall(r"CREATE TABLE (\w+)", schema_script()))


class OwnTables:
    """Judge statements when they are compiled: pabal's own are cached, and cost nothing when they run.

    Set once, for each setting has SQLite compile everything anew.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._own = own_tables()
        self._guards = False
        self._refused = ""
        connection.set_authorizer(self._judge)

    def keep(self, call: Callable[..., sqlite3.Cursor], sql: str, parameters: Any) -> sqlite3.Cursor:
        """Run an application's statement. Raises UsageError for one that writes a table of pabal's."""
        self._guards, self._refused = True, ""
        try:
            return call(sql, parameters)
        except sqlite3.DatabaseError as error:
            if not self._refused:
                raise
            raise UsageError(
                f"{sql.strip()!r} inside transact() changes {self._refused!r}, a table of pabal's; "
                "store events with tx.store_event(), and keep rows of your own in tables of your own"
            ) from error
        finally:
            self._guards = False

    def lift(self) -> None:
        """Let pabal's own statement pass that comes inside of an application's, from its rows."""
        self._guards = False

    def _judge(
        self, action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
    ) -> int:
        if self._guards and action in _TABLE_AT:
            table = (first, second)[_TABLE_AT[action]]
            if table is not None and table.lower() in self._own and database in ("main", None):
                self._refused = table
                return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK
