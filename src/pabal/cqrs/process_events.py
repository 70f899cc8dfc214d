"""What process managers leave on the log: their steps, their timeouts, and commands that were refused."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from pabal.domain.event import DomainEvent

STREAM = "pabal.process"


class SentCommand(msgspec.Struct, frozen=True):
    """Hold a command as it is stored."""

    command_type: str
    command_id: str
    payload: str


class PendingTimeout(msgspec.Struct, frozen=True):
    """Hold a timeout that is set: its event's id, and when it is due (seconds since 1970)."""

    name: str
    event_id: str
    due_at: float


class ProcessStepped(DomainEvent):
    """Say that an event led a process one step on: its state now, its timeouts, the commands of the step.

    ``process`` is the ``process_type``, ``key`` the instance's, and ``cause`` the id of the event that was
    taken. ``state`` is JSON; ``timeouts`` are all that are pending after the step.
    """

    event_type: ClassVar[str] = "pabal.process.stepped"
    aggregate_type: ClassVar[str] = STREAM
    process: str
    key: str
    cause: str
    state: str
    commands: tuple[SentCommand, ...]
    timeouts: tuple[PendingTimeout, ...]
    ended: bool

    @property
    def aggregate_id(self) -> str:
        """Return the name of the instance's stream."""
        return stream_id(self.process, self.key)


class ProcessTimedOut(DomainEvent):
    """Say that a timeout of a process is due; its ``event_id`` tells whether it is still wanted."""

    event_type: ClassVar[str] = "pabal.process.timed_out"
    process: str
    key: str
    timeout: str


class CommandRejected(DomainEvent):
    """Say that a command of a process was rejected by its handler, and with what exception.

    ``command_class`` is the name under which the command is stored, ``error_type`` a qualified class name,
    ``error`` the exception's message.
    """

    event_type: ClassVar[str] = "pabal.process.command_rejected"
    process: str
    key: str
    command_id: str
    command_class: str
    error_type: str
    error: str


def stream_id(process: str, key: str) -> str:
    """Return the id of the stream of one instance."""
    return f"{process}/{key}"
