"""Errors of commands, queries and process managers."""

from __future__ import annotations

from pabal.errors.base import PabalError
from pabal.errors.conflict import ConflictError
from pabal.errors.usage import UsageError


class HandlerNotFoundError(UsageError):
    """Report a command or query without a handler. Fields: ``bus, message_type``."""

    bus: str
    message_type: str
    template = (
        "no handler for {message_type} on this {bus}; decorate one with @handles({message_type}), "
        "and import its module"
    )


class DuplicateHandlerError(UsageError):
    """Report a second handler for one command or query type. Fields: ``message_type, first, second``."""

    message_type: str
    first: str
    second: str
    template = (
        "{message_type} is already handled by {first}, so {second} cannot handle it too; keep one. "
        "If several handlers must react to it, publish an event on the event bus instead"
    )


class InvalidMessageHandlerError(UsageError):
    """Report a function that cannot handle a command or query. Fields: ``handler, reason``."""

    handler: str
    reason: str
    template = (
        "{handler} cannot handle commands or queries: {reason}; the first parameter must be the message, "
        "and every other must be annotated with the type of the object to provide"
    )


class DependencyError(UsageError):
    """Report a parameter of a handler that the provider cannot supply.

    Fields: ``handler, parameter, wanted, reason``.
    """

    handler: str
    parameter: str
    wanted: str
    reason: str
    template = "{handler} asks for {parameter}: {wanted}, which cannot be provided: {reason}"


class InvalidMessageError(PabalError):
    """Report a command or query that fails its validation. Fields: ``message_type, reason``."""

    message_type: str
    reason: str
    template = "{message_type} is refused: {reason}; correct it and send it again"


class NotAuthorisedError(PabalError):
    """Report a command or query that its sender is not allowed to send. Field: ``message_type``."""

    message_type: str
    template = "{message_type} is not allowed here; ask for permission, or have an authorised user send it"


class CommandIdReusedError(ConflictError):
    """Report an id that another command was handled under. Fields: ``command_id, command_type, first``."""

    command_id: str
    command_type: str
    first: str
    template = (
        "command id {command_id} was already used by {first} with different "
        "content; {command_type} was not handled. Create a new command with its own id"
    )


class ProcessDefinitionError(UsageError):
    """Report a process manager that cannot work as written. Field: ``process``."""

    process: str
    template = "process manager {process}: {detail}"
