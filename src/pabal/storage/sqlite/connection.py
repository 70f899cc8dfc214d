"""What runs a statement, for functions that do not care in which thread."""

from __future__ import annotations

import sqlite3
from typing import Any, Protocol


class Connection(Protocol):
    """Anything that runs statements: a reader's connection, or the writer's transaction."""

    def execute(self, sql: str, parameters: Any = ..., /) -> sqlite3.Cursor:
        """Run one statement and return its cursor."""
        ...
