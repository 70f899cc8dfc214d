"""A connection that tells what the writer does with it, and can be stopped at any statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any


class TracedConnection:
    """Stand in for the writing connection: ``before`` and ``after`` run around every statement."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.log: list[str] = []
        """Every statement that has returned."""
        self.before: Callable[[str], None] = lambda sql: None
        self.after: Callable[[str], None] = lambda sql: None

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        self.before(sql)
        cursor = self._connection.execute(sql, *parameters)
        self.log.append(sql)
        self.after(sql)
        return cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    @property
    def commits(self) -> int:
        return self.log.count("COMMIT")
