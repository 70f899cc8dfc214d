"""Events, and the aggregates that record them: no asyncio, no I/O, no logging.

An application's own domain layer need depend only on this package.
"""

from pabal.domain.aggregate import Aggregate, applies
from pabal.domain.decider import Decider
from pabal.domain.envelope import Envelope, Receipt
from pabal.domain.event import DomainEvent
from pabal.domain.ids import new_event_id
from pabal.domain.registry import EventRegistry, register_event, registry, upcaster

__all__ = [
    "Aggregate",
    "Decider",
    "DomainEvent",
    "Envelope",
    "EventRegistry",
    "Receipt",
    "applies",
    "new_event_id",
    "register_event",
    "registry",
    "upcaster",
]
