"""pabal (파발): a domain event bus for Python, durable if it has a storage.

Names are loaded when first used, so importing ``pabal.domain`` loads neither asyncio nor a database.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from pabal.bus.base import BaseEventBus
    from pabal.bus.dead_letters import DeadLetter
    from pabal.bus.in_memory import InMemoryEventBus
    from pabal.bus.interface import EventBus
    from pabal.bus.statistics import Health
    from pabal.delivery.context import DeliveryContext
    from pabal.delivery.retry import RetryPolicy
    from pabal.delivery.subscription import Subscription
    from pabal.domain.envelope import Envelope, Receipt
    from pabal.domain.event import DomainEvent
    from pabal.domain.registry import register_event, upcaster
    from pabal.errors import (
        BusNotRunningError,
        ConcurrencyError,
        CorruptLogError,
        DuplicateEventError,
        NotRetryableError,
        PabalError,
        PatternMatchesNothingWarning,
        QueueFullError,
        StorageError,
    )
    from pabal.factory import EventBusFactory
    from pabal.storage.memory import InMemoryEventStorage
    from pabal.storage.sqlite.storage import SqliteEventStorage

_HOMES = {
    "BaseEventBus": "pabal.bus.base",
    "BusNotRunningError": "pabal.errors",
    "ConcurrencyError": "pabal.errors",
    "CorruptLogError": "pabal.errors",
    "DeadLetter": "pabal.bus.dead_letters",
    "DeliveryContext": "pabal.delivery.context",
    "DomainEvent": "pabal.domain.event",
    "DuplicateEventError": "pabal.errors",
    "Envelope": "pabal.domain.envelope",
    "EventBus": "pabal.bus.interface",
    "EventBusFactory": "pabal.factory",
    "Health": "pabal.bus.statistics",
    "InMemoryEventBus": "pabal.bus.in_memory",
    "InMemoryEventStorage": "pabal.storage.memory",
    "NotRetryableError": "pabal.errors",
    "PabalError": "pabal.errors",
    "PatternMatchesNothingWarning": "pabal.errors",
    "QueueFullError": "pabal.errors",
    "Receipt": "pabal.domain.envelope",
    "RetryPolicy": "pabal.delivery.retry",
    "SqliteEventStorage": "pabal.storage.sqlite.storage",
    "StorageError": "pabal.errors",
    "Subscription": "pabal.delivery.subscription",
    "register_event": "pabal.domain.registry",
    "upcaster": "pabal.domain.registry",
}

__all__ = [
    "BaseEventBus",
    "BusNotRunningError",
    "ConcurrencyError",
    "CorruptLogError",
    "DeadLetter",
    "DeliveryContext",
    "DomainEvent",
    "DuplicateEventError",
    "Envelope",
    "EventBus",
    "EventBusFactory",
    "Health",
    "InMemoryEventBus",
    "InMemoryEventStorage",
    "NotRetryableError",
    "PabalError",
    "PatternMatchesNothingWarning",
    "QueueFullError",
    "Receipt",
    "RetryPolicy",
    "SqliteEventStorage",
    "StorageError",
    "Subscription",
    "__version__",
    "register_event",
    "upcaster",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pabal")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'pabal' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
