"""Protect pabal's tables from the statements that an application runs inside ``transact``."""

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
    sqlite3.SQLITE_CREATE_TEMP_TABLE: 0,
    sqlite3.SQLITE_CREATE_TEMP_VIEW: 0,
    sqlite3.SQLITE_CREATE_VTABLE: 0,
    sqlite3.SQLITE_CREATE_TRIGGER: 1,
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER: 1,
}
"""Actions that change, drop or hide a table, and which argument of SQLite's authorizer callback names it.

A temporary table hides one of the same name: pabal's statements would write into it, and it ends with the
connection. A trigger of the application would run inside pabal's statements, which are not checked.
"""


@cache
def own_tables() -> frozenset[str]:
    """Return the names of the tables that pabal creates in every file."""
    return frozenset(re.findall(r"CREATE TABLE (\w+)", schema_script()))


class OwnTables:
    """Refuse an application's statements that write pabal's tables, or hide them from pabal's statements.

    SQLite asks the authorizer when it compiles a statement, so pabal's own cached statements cost nothing.
    The authorizer is set only once, because setting it makes SQLite recompile every statement.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._own = own_tables()
        self._is_guarding = False
        self._refused = ""
        connection.set_authorizer(self._authorize)

    def execute_guarded(
        self, call: Callable[..., sqlite3.Cursor], sql: str, parameters: Any
    ) -> sqlite3.Cursor:
        """Run an application's statement. Raises UsageError if it writes or hides one of pabal's tables."""
        self._is_guarding, self._refused = True, ""
        try:
            return call(sql, parameters)
        except sqlite3.DatabaseError as error:
            if not self._refused:
                raise
            raise UsageError(
                f"{sql.strip()!r} is not allowed inside transact(): it changes or hides {self._refused!r}, "
                "one of pabal's own tables; store events with tx.store_event(), and keep your rows in your "
                "own tables"
            ) from error
        finally:
            self._is_guarding = False

    def suspend(self) -> None:
        """Allow pabal's own statements: ``executemany`` may append events while it iterates over its rows."""
        self._is_guarding = False

    def _authorize(
        self, action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
    ) -> int:
        if self._is_guarding and action in _TABLE_AT:
            table = (first, second)[_TABLE_AT[action]]
            if table is not None and table.lower() in self._own and database in ("main", "temp", None):
                self._refused = table
                return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK
