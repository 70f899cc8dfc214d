"""The events that process managers store: their steps, their timeouts, and rejected commands."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from pabal.domain.event import DomainEvent

STREAM = "pabal.process"


class SentCommand(msgspec.Struct, frozen=True):
    """Hold a command as stored in a step."""

    command_type: str
    command_id: str
    payload: str


class PendingTimeout(msgspec.Struct, frozen=True):
    """Hold a pending timeout: the id of its event, and when it is due (seconds since 1970)."""

    name: str
    event_id: str
    due_at: float


class ProcessStepped(DomainEvent):
    """Record one step of a process: the new state, the pending timeouts, and the commands to send.

    ``process`` is the ``process_type``, ``key`` that of the instance, and ``cause`` the id of the event that
    was taken. ``state`` is JSON; ``timeouts`` are all that are pending after the step.
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
    """Report that a timeout is due. By its ``event_id``, the process knows whether it is still pending."""

    event_type: ClassVar[str] = "pabal.process.timed_out"
    process: str
    key: str
    timeout: str


class CommandRejected(DomainEvent):
    """Report that a handler rejected a command of a process, and with which exception.

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
    """Return the id of an instance's stream."""
    return f"{process}/{key}"
