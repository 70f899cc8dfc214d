"""A connection that records the writer's statements, and can be stopped at any of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any


class TracedConnection:
    """Wrap the writing connection; ``before`` and ``after`` are called around every statement."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.log: list[str] = []
        """The statements that have returned."""
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
