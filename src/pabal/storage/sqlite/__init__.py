"""The durable storage: one SQLite file, one writing thread."""

from pabal.storage.sqlite.storage import SqliteEventStorage

__all__ = ["SqliteEventStorage"]
