"""What an operator does with a bus: see what is stuck and why, and fix it.

``Operations`` is the one facade; the command line and the dashboard are built on it. ``operations_of`` makes
one for a live bus or an open storage, ``pabal.factory.open_operations`` for a file or URL.
"""

from __future__ import annotations

from typing import cast

from pabal.bus.base import BaseEventBus
from pabal.operations.bus_source import BusSource
from pabal.operations.facade import Operations
from pabal.operations.filters import parse_filter
from pabal.operations.group_source import GroupSource
from pabal.operations.masking import DEFAULT_FIELDS, HIDDEN, Masking
from pabal.operations.storage_source import StorageSource
from pabal.ports.inspection import InspectableStorage
from pabal.ports.operations import OperationsSource

__all__ = [
    "DEFAULT_FIELDS",
    "HIDDEN",
    "BusSource",
    "GroupSource",
    "Masking",
    "Operations",
    "StorageSource",
    "operations_of",
    "parse_filter",
]


def operations_of(
    target: BaseEventBus | InspectableStorage, *, masking: Masking | None = None, actor: str = "operator"
) -> Operations:
    """Return the operations of a live bus (with or without storage), or of an open storage.

    The bus or storage stays the caller's to stop and close. A bus without storage has no events to list, and
    of the actions only ``resume`` and those on dead letters. A bus on Redis has all but those on projections;
    its events are seen through ``pabal.factory.open_operations(url)``.

    >>> import asyncio
    >>> from pabal import DomainEvent, InMemoryEventStorage
    >>> class LampLit(DomainEvent):
    ...     room: str
    >>> async def main():
    ...     storage = InMemoryEventStorage()
    ...     await storage.store_event(LampLit("hall"))
    ...     page = await operations_of(storage, actor="kim").events(payloads=True)
    ...     return page.events[0].event_type, page.events[0].payload
    >>> asyncio.run(main())
    ('LampLit', {'room': 'hall'})
    """
    source: OperationsSource
    if not isinstance(target, BaseEventBus):
        source = StorageSource(target)
    elif target.storage is None:
        source = BusSource(target)
    else:
        source = StorageSource(cast("InspectableStorage", target.storage), target)
    return Operations(source, masking=masking, actor=actor)
