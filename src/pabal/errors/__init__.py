"""Every exception that pabal raises, grouped by what the caller can do about it.

::

    PabalError
    ├── UsageError                          the calling code is wrong: change it
    │   ├── EventDefinitionError            an event class cannot be registered
    │   │   ├── DuplicateEventTypeError
    │   │   ├── UnsupportedFieldError
    │   │   └── UpcasterError
    │   ├── SubscriptionError               a subscribe() call cannot be honoured
    │   │   ├── InvalidHandlerError
    │   │   └── DuplicateSubscriptionError
    │   ├── BusNotRunningError              publish on a bus that is stopped
    │   ├── WrongLoopError                  publish from another event loop or thread
    │   ├── InsideHandlerError              a call that would wait for itself
    │   ├── InvalidFilterError              a filter that cannot be read
    │   ├── AggregateDefinitionError        an aggregate class cannot work as written
    │   ├── EventNotAppliedError            an aggregate has no method for an event
    │   ├── SpoiledAggregateError           an aggregate that failed half-way is used again
    │   ├── ProjectionDefinitionError       a projection class cannot work as written
    │   ├── PartitionCountError             the log on the broker has another number of partitions
    │   ├── HandlerNotFoundError            a command or query that nobody handles
    │   ├── DuplicateHandlerError
    │   ├── InvalidMessageHandlerError
    │   ├── DependencyError                 what a handler asks for is not provided
    │   ├── ProcessDefinitionError          a process manager that cannot work as written
    │   └── MissingExtraError               an optional part is not installed
    ├── InvalidEventError                   this event cannot be published: fix the event
    │   ├── UnregisteredEventError
    │   ├── UnserializableEventError
    │   ├── NonFiniteNumberError
    │   ├── NaiveDatetimeError
    │   ├── PayloadTooLargeError
    │   ├── EventWithoutAggregateError      recorded by an aggregate
    │   └── EventOfOtherAggregateError
    ├── ConflictError                       another writer was first: load again, decide again
    │   ├── ConcurrencyError
    │   ├── DuplicateEventError
    │   ├── LeaseLostError
    │   ├── CommandIdReusedError
    │   └── SubscriptionInUseError
    ├── CapacityError                       too much at once: slow down or allow more
    │   ├── QueueFullError
    │   └── DrainTimeoutError
    ├── NotRetryableError                   raised *by handlers*: park at once, do not retry
    ├── DecodeError                         a stored payload no longer fits its class
    │   └── UnknownEventTypeError
    ├── SnapshotError                       a cache of an aggregate: its events are replayed instead
    │   └── SnapshotOfOtherClassError
    ├── ProjectionError                     a read model cannot go on: its tables are left as they are
    │   ├── ProjectionHandlerError          a handler raised
    │   └── EventNotProjectedError          an event that a rebuild does not know
    ├── AggregateNotFoundError
    ├── InvalidMessageError                 a command or query that fails its validation
    ├── NotAuthorisedError                  … that its sender may not send
    ├── DeadLetterNotFoundError
    ├── EventNotFoundError
    ├── SubscriptionNotFoundError
    ├── ProjectionNotFoundError
    ├── ActionNotPossibleError              an operator's action that cannot be done here or now
    └── StorageError                        the file or the disk: an operator must look
        ├── StorageClosedError
        ├── StorageUnavailableError         cannot be opened, read or written right now
        ├── NotAPabalDatabaseError
        ├── NewerSchemaError
        ├── CorruptLogError
        │   └── CorruptDeadLetterError
        └── BrokerError                     the server between processes
            └── BrokerUnavailableError      cannot be reached, or refuses to work, right now

Errors have fields; the message is made from them, and says what happened, to what, and what to do next.
"""

from __future__ import annotations

from pabal.errors.base import PabalError
from pabal.errors.broker import BrokerError, BrokerUnavailableError, PartitionCountError
from pabal.errors.conflict import (
    ConcurrencyError,
    ConflictError,
    DuplicateEventError,
    LeaseLostError,
    SubscriptionInUseError,
)
from pabal.errors.cqrs import (
    CommandIdReusedError,
    DependencyError,
    DuplicateHandlerError,
    HandlerNotFoundError,
    InvalidMessageError,
    InvalidMessageHandlerError,
    NotAuthorisedError,
    ProcessDefinitionError,
)
from pabal.errors.delivery import (
    CapacityError,
    DeadLetterNotFoundError,
    DrainTimeoutError,
    NotRetryableError,
    QueueFullError,
    SubscriptionNotFoundError,
)
from pabal.errors.events import (
    DecodeError,
    InvalidEventError,
    NaiveDatetimeError,
    NonFiniteNumberError,
    PayloadTooLargeError,
    UnknownEventTypeError,
    UnregisteredEventError,
    UnserializableEventError,
)
from pabal.errors.operations import (
    ActionNotPossibleError,
    EventNotFoundError,
    InvalidFilterError,
)
from pabal.errors.sourcing import (
    AggregateDefinitionError,
    AggregateNotFoundError,
    EventNotAppliedError,
    EventNotProjectedError,
    EventOfOtherAggregateError,
    EventWithoutAggregateError,
    ProjectionDefinitionError,
    ProjectionError,
    ProjectionHandlerError,
    ProjectionNotFoundError,
    SnapshotError,
    SnapshotOfOtherClassError,
    SpoiledAggregateError,
)
from pabal.errors.storage import (
    CorruptDeadLetterError,
    CorruptLogError,
    NewerSchemaError,
    NotAPabalDatabaseError,
    StorageClosedError,
    StorageError,
    StorageUnavailableError,
)
from pabal.errors.usage import (
    BusNotRunningError,
    DuplicateEventTypeError,
    DuplicateSubscriptionError,
    EventDefinitionError,
    InsideHandlerError,
    InvalidHandlerError,
    MissingExtraError,
    PatternMatchesNothingWarning,
    SubscriptionError,
    UnsupportedFieldError,
    UpcasterError,
    UsageError,
    WrongLoopError,
)

__all__ = [
    "ActionNotPossibleError",
    "AggregateDefinitionError",
    "AggregateNotFoundError",
    "BrokerError",
    "BrokerUnavailableError",
    "BusNotRunningError",
    "CapacityError",
    "CommandIdReusedError",
    "ConcurrencyError",
    "ConflictError",
    "CorruptDeadLetterError",
    "CorruptLogError",
    "DeadLetterNotFoundError",
    "DecodeError",
    "DependencyError",
    "DrainTimeoutError",
    "DuplicateEventError",
    "DuplicateEventTypeError",
    "DuplicateHandlerError",
    "DuplicateSubscriptionError",
    "EventDefinitionError",
    "EventNotAppliedError",
    "EventNotFoundError",
    "EventNotProjectedError",
    "EventOfOtherAggregateError",
    "EventWithoutAggregateError",
    "HandlerNotFoundError",
    "InsideHandlerError",
    "InvalidEventError",
    "InvalidFilterError",
    "InvalidHandlerError",
    "InvalidMessageError",
    "InvalidMessageHandlerError",
    "LeaseLostError",
    "MissingExtraError",
    "NaiveDatetimeError",
    "NewerSchemaError",
    "NonFiniteNumberError",
    "NotAPabalDatabaseError",
    "NotAuthorisedError",
    "NotRetryableError",
    "PabalError",
    "PartitionCountError",
    "PatternMatchesNothingWarning",
    "PayloadTooLargeError",
    "ProcessDefinitionError",
    "ProjectionDefinitionError",
    "ProjectionError",
    "ProjectionHandlerError",
    "ProjectionNotFoundError",
    "QueueFullError",
    "SnapshotError",
    "SnapshotOfOtherClassError",
    "SpoiledAggregateError",
    "StorageClosedError",
    "StorageError",
    "StorageUnavailableError",
    "SubscriptionError",
    "SubscriptionInUseError",
    "SubscriptionNotFoundError",
    "UnknownEventTypeError",
    "UnregisteredEventError",
    "UnserializableEventError",
    "UnsupportedFieldError",
    "UpcasterError",
    "UsageError",
    "WrongLoopError",
]
