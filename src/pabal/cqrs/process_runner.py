"""Run process managers on a bus: store each step before sending its commands, handled once each."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple, TypeVar
from uuid import UUID, uuid5

import msgspec

from pabal.cqrs.buses import CommandBus
from pabal.cqrs.idempotency import Idempotency
from pabal.cqrs.messages import Command, command_type_of
from pabal.cqrs.process import ProcessManager
from pabal.cqrs.process_events import (
    STREAM,
    CommandRejected,
    PendingTimeout,
    ProcessStepped,
    ProcessTimedOut,
    SentCommand,
    stream_id,
)
from pabal.delivery.clock import SystemClock
from pabal.delivery.context import DeliveryContext, current_event, with_cause
from pabal.delivery.subscription import Subscription
from pabal.delivery.tracebacks import message_of
from pabal.domain.envelope import decode_event, from_microseconds
from pabal.errors import (
    ConcurrencyError,
    HandlerNotFoundError,
    ProcessDefinitionError,
    SubscriptionError,
    UsageError,
)
from pabal.eventsourcing.appending import storage_of
from pabal.ports.clock import Clock
from pabal.ports.storage import AggregateStorage, StreamAppend

P = TypeVar("P", bound=ProcessManager)
_NAMESPACE = UUID("0d0d3d2f-6a5b-5b0e-8a5e-50f2b7b1c0a4")
_MAX_CACHED_INSTANCES = 1_000


class ProcessManagers:
    """Deliver events from a bus to process managers, and send their commands to a command bus.

    Each delivered event makes one step: the new state, the commands and the timeouts are stored as one event,
    whose id is derived from that of the delivered event. Only then are the commands sent, with ids derived
    from the step's, and the timeouts scheduled. If the process crashes in between, the event is delivered
    again, its step is found on the log, and the same commands are sent again; ``Idempotency`` makes sure
    that each is handled once.

    Events of one key are handled one after the other. An event whose commands keep failing is parked, and
    later events of that key queue behind it. ``clock`` is the clock by which timeouts count; it defaults to
    that of the bus.

    Raises UsageError if the bus has no storage, or the command bus no ``Idempotency``.

    >>> import asyncio
    >>> from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage
    >>> from pabal.cqrs import starts
    >>> class GoodsOrdered(DomainEvent):
    ...     order: str
    >>> class ShipGoods(Command[None]):
    ...     order: str
    >>> class Shipping(ProcessManager):
    ...     @starts(GoodsOrdered, key="order")
    ...     def ordered(self, event: GoodsOrdered) -> None:
    ...         self.send(ShipGoods(event.order))
    >>> async def main() -> list[str]:
    ...     bus, commands, shipped = InMemoryEventBus(InMemoryEventStorage()), CommandBus(), []
    ...     commands.use(Idempotency(bus))
    ...     @commands.handles(ShipGoods)
    ...     async def ship(command: ShipGoods) -> None:
    ...         shipped.append(command.order)
    ...     ProcessManagers(bus, commands).add(Shipping)
    ...     async with bus:
    ...         await bus.publish(GoodsOrdered("o-1"))
    ...     return shipped
    >>> asyncio.run(main())
    ['o-1']
    """

    def __init__(self, bus: Any, commands: CommandBus, *, clock: Clock | None = None) -> None:
        self._bus = bus
        self._storage = storage_of(bus)
        if not any(isinstance(layer, Idempotency) for layer in commands.middleware):
            raise UsageError(
                "a command of a process may be sent twice after a crash: "
                "call commands.use(Idempotency(bus)) first, so that it is handled once"
            )
        self._commands = commands
        self._clock: Clock = clock or getattr(bus, "clock", None) or SystemClock()
        self._runners: dict[type[ProcessManager], _Runner] = {}

    def add(self, process: type[ProcessManager], **options: Any) -> Subscription:
        """Subscribe a process manager, under the name ``process:`` followed by its ``process_type``.

        ``options`` are those of ``subscribe`` except ``ordering``, ``where`` and ``batch``; ``on_exhausted``
        defaults to ``"park_key"``. Raises ProcessDefinitionError, SubscriptionError.
        """
        _check_process(process)
        for option in ("ordering", "where"):
            if option in options:
                raise SubscriptionError(
                    f"{option}= is set by the process manager from its keys; leave it out"
                )
        runner = _Runner(process, self._bus, self._storage, self._commands, self._clock)
        options = {"name": f"process:{process.process_type}", "on_exhausted": "park_key", **options}
        subscription: Subscription = self._bus.subscribe(
            (*process.reactions, ProcessTimedOut, CommandRejected),
            runner.handle,
            where=lambda event: process.key_of(event) is not None,
            ordering=process.key_of,
            **options,
        )
        self._runners[process] = runner
        return subscription

    async def load(self, process: type[P], key: str) -> P | None:
        """Return an instance as its last step left it, or None if there is none.

        Raises UsageError for a key that is not text, StorageError, and DecodeError for a state that no longer
        fits the class.
        """
        if not isinstance(key, str):
            raise UsageError(f"the key is {key!r:.60}; keys are text, as the process manager has them")
        runner = self._runners.get(process) or _Runner(
            process, self._bus, self._storage, self._commands, self._clock
        )
        instance = await runner.read(str.__str__(key))
        return None if instance.last is None else runner.restore(instance.last)  # type: ignore[return-value]


class _Instance(NamedTuple):
    version: int
    last: ProcessStepped | None
    causes: set[str]


class _Runner:
    def __init__(
        self,
        process: type[ProcessManager],
        bus: Any,
        storage: AggregateStorage,
        commands: CommandBus,
        clock: Clock,
    ) -> None:
        self._process = process
        self._name = process.process_type
        self._bus = bus
        self._storage = storage
        self._commands = commands
        self._clock = clock
        self._instances: OrderedDict[str, _Instance] = OrderedDict()

    async def handle(self, event: Any, context: DeliveryContext) -> None:
        """Take one event: make its step, or find the step made earlier, and send the step's commands."""
        key = self._process.key_of(event)
        assert key is not None
        # Not cached while in progress: if this fails or is cancelled, the instance is read from the log.
        cached = self._instances.pop(key, None)
        instance = cached or await self.read(key)
        if context.event_id in instance.causes:
            earlier = await self._storage.get_event(self._step_id(key, context.event_id))
            if earlier is not None:
                await self._dispatch(earlier, repeated=True)
        elif (step := self._make_step(instance, key, event, context.event_id)) is not None:
            instance = await self._store(step, instance)
            await self._dispatch(step, repeated=False)
        elif cached is not None and await self._has_newer_steps(key, cached):
            await self.handle(event, context)
            return
        self._instances[key] = instance
        if len(self._instances) > _MAX_CACHED_INSTANCES:
            self._instances.popitem(last=False)

    async def _has_newer_steps(self, key: str, cached: _Instance) -> bool:
        """Return whether another process, subscribed meanwhile, has stored further steps of an instance."""
        return bool(await self._storage.read_history(STREAM, stream_id(self._name, key), cached.version))

    async def read(self, key: str) -> _Instance:
        """Read an instance from the log."""
        rows = await self._storage.read_history(STREAM, stream_id(self._name, key))
        steps = [decode_event(row) for row in rows]
        last = steps[-1] if steps else None
        assert last is None or isinstance(last, ProcessStepped)
        # Not the number of rows: the first steps may have been trimmed.
        version = rows[-1].stream_version or 0 if rows else 0
        return _Instance(version, last, {step.cause for step in steps})  # type: ignore[attr-defined]

    def restore(self, last: ProcessStepped) -> ProcessManager:
        """Return an instance as a step left it."""
        process = self._process(last.key)
        self._process.codec.restore(process, last.state)
        process.ended = last.ended
        return process

    # -- a step ---------------------------------------------------------------------------------------

    def _step_id(self, key: str, cause: str) -> str:
        return _derive_id(self._name, key, cause)

    def _make_step(self, instance: _Instance, key: str, event: Any, cause: str) -> ProcessStepped | None:
        last = instance.last
        if last is None:
            if not self._process.may_start_with(event):
                return None
            process = self._process(key)
        else:
            if last.ended or (isinstance(event, ProcessTimedOut) and not _is_due(last, cause)):
                return None
            process = self.restore(last)
        if not process.take(event):
            return None
        for command in process.sent:
            self._refuse_duplicate_name(type(command))
        step_id = self._step_id(key, cause)
        return ProcessStepped(
            self._name,
            key,
            cause,
            process.codec.encode(process, "{}" if last is None else last.state),
            tuple(self._to_sent_command(each, step_id, number) for number, each in enumerate(process.sent)),
            () if process.ended else self._timeouts(process, last, step_id, cause),
            process.ended,
            event_id=step_id,
        )

    def _timeouts(
        self, process: ProcessManager, last: ProcessStepped | None, step_id: str, cause: str
    ) -> tuple[PendingTimeout, ...]:
        """Return the pending timeouts after a step: the old ones still pending, and those newly set."""
        pending = {
            each.name: each
            for each in (last.timeouts if last is not None else ())
            if each.event_id != cause and each.name not in process.timeouts
        }
        now = self._clock.time()
        for name, seconds in process.timeouts.items():
            if seconds is not None:
                pending[name] = PendingTimeout(name, _derive_id(step_id, name), now + seconds)
        return tuple(pending.values())

    async def _store(self, step: ProcessStepped, instance: _Instance) -> _Instance:
        """Append a step to an instance; return the instance after it."""
        version = instance.version
        caused = with_cause(step, current_event.get())
        try:
            await self._storage.append_streams([StreamAppend(STREAM, step.aggregate_id, version, (caused,))])
        except ConcurrencyError as conflict:
            if version or await self._storage.read_history(STREAM, step.aggregate_id):
                raise
            # All its steps were trimmed and it starts over, but the log still counts their versions.
            version = conflict.actual_version
            await self._storage.append_streams([StreamAppend(STREAM, step.aggregate_id, version, (caused,))])
        instance.causes.add(step.cause)
        return _Instance(version + 1, step, instance.causes)

    # -- sending commands and timeouts ----------------------------------------------------------------

    async def _dispatch(self, step: ProcessStepped, *, repeated: bool) -> None:
        for timeout in step.timeouts:
            if timeout.event_id == _derive_id(step.event_id, timeout.name):  # set in this step
                due = from_microseconds(int(timeout.due_at * 1_000_000))
                event = ProcessTimedOut(step.process, step.key, timeout.name, event_id=timeout.event_id)
                await self._bus.publish(event, deliver_at=due)
        for sent in step.commands:
            rejection_id = _derive_id(sent.command_id, "rejected")
            if repeated and await self._storage.get_event(rejection_id) is not None:
                return
            command = self._decode_command(sent)
            try:
                await self._commands.execute(command)
            except self._process.rejections as error:
                if not self._process.handles_rejection_of(command):
                    raise
                await self._bus.publish(_rejection(step, command, error, rejection_id))
                return  # the step's later commands were meant to run only after this one succeeded

    def _to_sent_command(self, command: Command[Any], step_id: str, number: int) -> SentCommand:
        command_id = _derive_id(step_id, str(number))
        named = msgspec.structs.replace(command, command_id=command_id)
        try:
            payload = msgspec.json.encode(named)
            # A step that holds a command nobody can read would fail forever, even after the code was mended.
            msgspec.json.decode(payload, type=type(command))
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise ProcessDefinitionError(
                f"it sends {type(command).__qualname__}, which cannot be stored as declared: {error}",
                process=self._process.__qualname__,
            ) from error
        return SentCommand(command_type_of(type(command)), command_id, payload.decode())

    def _decode_command(self, sent: SentCommand) -> Command[Any]:
        for cls in self._commands.message_classes():
            if issubclass(cls, Command) and command_type_of(cls) == sent.command_type:
                self._refuse_duplicate_name(cls)
                return msgspec.json.decode(sent.payload, type=cls)
        raise HandlerNotFoundError(bus=self._commands.kind, message_type=sent.command_type)

    def _refuse_duplicate_name(self, cls: type) -> None:
        """Raise ProcessDefinitionError if two commands would be stored under the same name."""
        name = command_type_of(cls)
        for other in self._commands.message_classes():
            if other is not cls and issubclass(other, Command) and command_type_of(other) == name:
                raise ProcessDefinitionError(
                    f"it sends {cls.__module__}.{cls.__qualname__}, which is stored under the same name as "
                    f"{other.__module__}.{other.__qualname__}; give one of them a command_type",
                    process=self._process.__qualname__,
                )


def _check_process(process: Any) -> None:
    """Raise ProcessDefinitionError for a class that could never do anything."""
    detail = ""
    if not (isinstance(process, type) and issubclass(process, ProcessManager)) or not process.reactions:
        detail = "it takes no events; derive it from ProcessManager and mark a method with @starts"
    elif not any(reaction.starts for reaction in process.reactions.values()):
        detail = "no event begins an instance, so none would ever take one; mark a method with @starts"
    elif process.rejection_methods and not process.rejections:
        detail = (
            "@on_rejected would never be called; name the exceptions that mean no, as "
            "rejections = (SoldError,)"
        )
    if detail:
        raise ProcessDefinitionError(detail, process=getattr(process, "__qualname__", repr(process)))


def _derive_id(*parts: str) -> str:
    """Return an event or command id that is the same whenever it is derived from these parts."""
    return str(uuid5(_NAMESPACE, "\n".join(parts)))


def _is_due(last: ProcessStepped, event_id: str) -> bool:
    return any(each.event_id == event_id for each in last.timeouts)


def _rejection(
    step: ProcessStepped, command: Command[Any], error: Exception, event_id: str
) -> CommandRejected:
    return CommandRejected(
        step.process,
        step.key,
        command.command_id,
        command_type_of(type(command)),
        type(error).__qualname__,
        message_of(error),
        event_id=event_id,
    )
