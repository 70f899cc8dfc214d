"""Handle each command once: its id is stored in the same append as the events it caused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from hashlib import sha256
from typing import Any, ClassVar, Literal
from uuid import UUID, uuid5

import msgspec

from pabal.cqrs.handling import CallNext, MessageContext
from pabal.cqrs.messages import Command, command_type_of
from pabal.domain.envelope import Receipt
from pabal.domain.event import DomainEvent
from pabal.domain.ids import new_event_id
from pabal.errors import CommandIdReusedError, ConcurrencyError, DecodeError, DuplicateEventError, UsageError
from pabal.eventsourcing import UnitOfWork
from pabal.eventsourcing.appending import storage_of
from pabal.ports.storage import AggregateStorage, StreamAppend

_NAMESPACE = UUID("5a1f4c0e-7d0b-5f0e-9a53-2f6a3d0c81b7")
_STREAM = "pabal.command"


class _Attempt:
    """One handling of a command, from start to end, and the other attempts it waits for."""

    def __init__(self, storage: AggregateStorage, command_id: str, done: asyncio.Future[None]) -> None:
        self.storage = storage
        self.command_id = command_id
        self.done = done
        self.awaited: list[_Attempt] = []
        """The attempts that a command sent from inside this one is waiting for."""

    def waits_for_any(self, others: Sequence[_Attempt]) -> bool:
        """Return whether this attempt waits for one of ``others``, directly or through further attempts."""
        seen: set[_Attempt] = {self}
        stack: list[_Attempt] = [self]
        while stack:
            for attempt in tuple(stack.pop().awaited):
                if attempt in others:
                    return True
                if attempt not in seen:
                    seen.add(attempt)
                    stack.append(attempt)
        return False


_attempts: ContextVar[tuple[_Attempt, ...]] = ContextVar("pabal_handling", default=())
"""The attempts whose handlers led to the current call, or started its task."""


class CommandHandled(DomainEvent):
    """Record that a command was handled, and its result; stored with the events it caused.

    ``fingerprint`` is the first 16 hex digits of the SHA-256 of the command's JSON, with sets and mappings
    sorted; ``result`` is JSON; ``handling`` is the id of the attempt that stored it.
    """

    event_type: ClassVar[str] = "pabal.command.handled"
    aggregate_type: ClassVar[str] = _STREAM
    command_id: str
    command_type: str
    fingerprint: str
    result: str
    handling: str

    @property
    def aggregate_id(self) -> str:
        """Return the command's id."""
        return self.command_id


class _ManagedUnitOfWork(UnitOfWork):
    async def commit(self) -> Receipt | None:
        raise UsageError(
            "a handler must not commit its unit of work: Idempotency commits it, with the command's id, "
            "when the handler returns; use it without 'async with', and call only edit()"
        )

    async def commit_with_id(self) -> Receipt | None:
        await self.refuse_stale(changed=False)
        return await super().commit()


class Idempotency:
    """Middleware that handles each command id once, across restarts and processes.

    ``commands.use(Idempotency(bus))``. A handler asks for a ``UnitOfWork`` by type and changes aggregates
    through it; committing it is a UsageError. When the handler returns, the events, the command's id and its
    result are stored in one append, the latter two as a ``CommandHandled``. If the command is sent again, its
    handler is not called, and the first result is returned.

    If the same id is sent twice concurrently in one event loop, the second call waits for the first. In two
    loops or processes, both are handled, the second append is refused, and both calls return the first
    result. A command whose handler raises stores nothing and may be sent again; if it raised, or changed
    nothing, because of a cached aggregate that another process has changed, that is a ConcurrencyError.
    Effects outside the unit of work (an e-mail, the handler's own append) are not covered.

    An id is known as long as its ``CommandHandled`` is in the log. If the command is sent again after
    ``trim`` deleted that event, it is handled again, but its events are refused with ConcurrencyError.

    Messages without ``command_id`` pass through. Raises CommandIdReusedError for an id with other content,
    UsageError for a bus without storage, for an id that is not text, for a command or result that has no JSON
    form, for a result that does not match the handler's return annotation or would not come back equal, and
    for a command that is sent again by its own handler or would wait for itself through another; DecodeError
    for a first result that no longer matches the annotation; and what ``UnitOfWork.commit`` raises.

    >>> import asyncio
    >>> from pabal import InMemoryEventStorage
    >>> from pabal.cqrs import Command, CommandBus
    >>> class Greet(Command[str]):
    ...     name: str
    >>> commands = CommandBus()
    >>> commands.use(Idempotency(InMemoryEventStorage()))
    >>> @commands.handles(Greet)
    ... async def greet(command: Greet, work: UnitOfWork) -> str:
    ...     print("handled")
    ...     return f"hello {command.name}"
    >>> async def main() -> list[str]:
    ...     command = Greet("kim")
    ...     return [await commands.execute(command), await commands.execute(command)]
    >>> asyncio.run(main())
    handled
    ['hello kim', 'hello kim']
    """

    def __init__(self, bus_or_storage: Any) -> None:
        self.storage = storage_of(bus_or_storage)
        self._running: dict[tuple[asyncio.AbstractEventLoop, str], _Attempt] = {}

    async def __call__(self, message: Any, context: MessageContext, call_next: CallNext) -> Any:
        """Handle a message, or return its first result if it was handled before."""
        command_id = getattr(message, "command_id", None)
        if command_id is None and not isinstance(message, Command):
            return await call_next()
        if not isinstance(command_id, str) or not command_id:
            raise UsageError(
                f"{context.message_type} has the command_id {command_id!r:.60}; it must be text that is "
                "not empty, such as str(…), or be left out to get a new one"
            )
        if any(
            each.command_id == command_id and each.storage is self.storage for each in _enclosing_attempts()
        ):
            raise UsageError(
                f"{context.message_type} {command_id} is sent while it is being handled, by its own handler: "
                "it would wait for itself; send a command with another id"
            )
        loop = asyncio.get_running_loop()
        key = (loop, command_id)  # another loop's attempt cannot be awaited; treat it like another process
        while (running := self._running.get(key)) is not None:
            await _wait_for(running, context)
        attempt = self._running[key] = _Attempt(self.storage, command_id, loop.create_future())
        token = _attempts.set((*_attempts.get(), attempt))
        try:
            return await self._handle_once(message, command_id, context, call_next)
        finally:
            _attempts.reset(token)
            del self._running[key]
            attempt.done.set_result(None)

    async def _handle_once(
        self, message: Any, command_id: str, context: MessageContext, call_next: CallNext
    ) -> Any:
        # Deterministic order: sets are ordered differently in each process, but the command is the same.
        content = _encode(message, f"the command {context.message_type}", "deterministic")
        fingerprint = sha256(content).hexdigest()[:16]
        marker_id = str(uuid5(_NAMESPACE, command_id))
        handled = await self.storage.get_event(marker_id)
        if handled is not None:
            return _result_of(handled, message, fingerprint, context)
        work = _ManagedUnitOfWork(self.storage)
        context.provided[UnitOfWork] = work
        try:
            result = await call_next()
        except Exception:
            # Another process may have handled it meanwhile, and the rules refuse to do the same twice.
            handled = await self.storage.get_event(marker_id)
            if handled is not None:
                return _result_of(handled, message, fingerprint, context)
            await work.refuse_stale(changed=True)
            raise
        encoded = _encode(result, f"what {context.handler} returned")
        _check_result(result, encoded, context)
        marker = CommandHandled(
            command_id,
            command_type_of(type(message)),
            fingerprint,
            encoded.decode(),
            # A marker from another attempt has different content, so the log refuses it and its whole append.
            new_event_id(),
            event_id=marker_id,
        )
        work.append(StreamAppend(_STREAM, command_id, 0, (marker,)))
        try:
            await work.commit_with_id()
        except (ConcurrencyError, DuplicateEventError):
            handled = await self.storage.get_event(marker_id)
            if handled is None:
                raise
            return _result_of(handled, message, fingerprint, context)
        return result


def _enclosing_attempts() -> list[_Attempt]:
    # A task left behind by a handler may send the same command again after the handler has returned.
    return [each for each in _attempts.get() if not each.done.done()]


async def _wait_for(running: _Attempt, context: MessageContext) -> None:
    """Wait for a running attempt to end. Raises UsageError if that would be a deadlock."""
    enclosing = _enclosing_attempts()
    if running.waits_for_any(enclosing):
        raise UsageError(
            f"{context.message_type} {running.command_id} is being handled, and its handler waits for "
            "the one that sends it here, so both would wait forever; send a command with another id"
        )
    for each in enclosing:
        each.awaited.append(running)
    try:
        await asyncio.shield(running.done)
    finally:
        for each in enclosing:
            each.awaited.remove(running)


def _encode(value: Any, what: str, order: Literal["deterministic"] | None = None) -> bytes:
    try:
        return msgspec.json.encode(value, order=order)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"{what} has no JSON form ({error}), so it could not be returned if the command is sent again; "
            "nothing was stored. Use plain values, or structs and frozen dataclasses of them"
        ) from error


def _result_of(handled: CommandHandled, message: Any, fingerprint: str, context: MessageContext) -> Any:
    command_type = command_type_of(type(message))
    if (handled.command_type, handled.fingerprint) != (command_type, fingerprint):
        raise CommandIdReusedError(
            command_id=handled.command_id, command_type=command_type, first=handled.command_type
        )
    try:
        return _decode(handled.result, context)
    except (TypeError, msgspec.ValidationError) as error:
        raise DecodeError(event_type=f"result of {command_type}", position=None, reason=str(error)) from error


def _check_result(result: Any, encoded: bytes, context: MessageContext) -> None:
    """Raise UsageError if a repeated command would not return an equal result.

    Values of a class whose instances are equal only to themselves cannot be compared.
    """
    try:
        decoded = _decode(encoded, context)
    except (TypeError, msgspec.ValidationError) as error:
        raise UsageError(
            f"the value that {context.handler} returned does not match its annotation ({error}), so it "
            "could not be returned if the command is sent again; nothing was stored. Correct the annotation"
        ) from error
    if decoded != result and decoded == _decode(encoded, context):
        raise UsageError(
            f"{context.handler} returned {result!r:.60}, which would come back as {decoded!r:.60} if the "
            "command is sent again; nothing was stored. Annotate the result more exactly"
        )


def _decode(encoded: str | bytes, context: MessageContext) -> Any:
    return msgspec.json.decode(encoded, type=Any if context.returns is None else context.returns)
