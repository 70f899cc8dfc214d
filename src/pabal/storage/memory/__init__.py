"""A storage without a file: the reference model that tests compare the others with."""

from pabal.storage.memory.storage import InMemoryEventStorage

__all__ = ["InMemoryEventStorage"]
