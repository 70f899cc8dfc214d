"""The durable storage: one SQLite file, written by one thread."""

from pabal.storage.sqlite.storage import SqliteEventStorage

__all__ = ["SqliteEventStorage"]
