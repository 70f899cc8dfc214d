"""A storage in memory: the reference model with which tests compare the other storages."""

from pabal.storage.memory.storage import InMemoryEventStorage

__all__ = ["InMemoryEventStorage"]
