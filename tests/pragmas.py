"""Settings of a storage's connection that applications may not change: tests make a disk small with them."""

from __future__ import annotations

from pabal import SqliteEventStorage


async def set_pragma(storage: SqliteEventStorage, assignment: str) -> None:
    """Set a PRAGMA, as in ``wal_autocheckpoint = 10``, on the connection that writes."""
    await storage._do(lambda tx: tx._open.execute(f"PRAGMA {assignment}").fetchall())
