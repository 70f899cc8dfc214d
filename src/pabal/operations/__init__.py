"""Operate a bus: see which subscriptions are stuck and why, and fix them.

``Operations`` is the facade on which the command line and the dashboard are built. ``operations_of`` makes
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

    The caller still has to stop the bus or close the storage. A bus without storage has no events to list,
    and supports only ``resume`` and the actions on dead letters. A bus on Redis supports all actions but
    those on projections; to see its events, use ``pabal.factory.open_operations(url)``.

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
