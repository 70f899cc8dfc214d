"""Commands, queries and process managers above the event bus."""

from pabal.cqrs.buses import CommandBus, QueryBus
from pabal.cqrs.handling import MessageContext
from pabal.cqrs.idempotency import CommandHandled, Idempotency
from pabal.cqrs.messages import Command, Query
from pabal.cqrs.middleware import authorise, log_messages, retry_conflicts, validate
from pabal.cqrs.process import ProcessManager, on_rejected, on_timeout, reacts, starts
from pabal.cqrs.process_events import CommandRejected, ProcessStepped, ProcessTimedOut
from pabal.cqrs.process_runner import ProcessManagers

__all__ = [
    "Command",
    "CommandBus",
    "CommandHandled",
    "CommandRejected",
    "Idempotency",
    "MessageContext",
    "ProcessManager",
    "ProcessManagers",
    "ProcessStepped",
    "ProcessTimedOut",
    "Query",
    "QueryBus",
    "authorise",
    "log_messages",
    "on_rejected",
    "on_timeout",
    "reacts",
    "retry_conflicts",
    "starts",
    "validate",
]
