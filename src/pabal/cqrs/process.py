"""``ProcessManager``: takes events and decides on commands, without side effects, like an aggregate."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from operator import attrgetter
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from pabal.cqrs.messages import Command, command_type_of
from pabal.cqrs.process_events import CommandRejected, ProcessTimedOut
from pabal.cqrs.process_state import StateCodec
from pabal.domain.marking import can_be_paused, is_yet_to_run, snake_case
from pabal.errors import ProcessDefinitionError

F = TypeVar("F", bound=Callable[..., None])
KeyOf = str | Callable[[Any], str | None]
_MARKS = "_pabal_reactions"
_MAX_TIMEOUT_SECONDS = 1e11
"""Seconds, about 3,000 years: a timeout due after that would have no valid date."""


class Reaction(NamedTuple):
    """Name the method that takes an event, and how to find the instance the event belongs to."""

    method: str
    key_of: Callable[[Any], str | None]
    starts: bool


class _Mark(NamedTuple):
    """Say what a marked method takes: events of a class, a timeout, or rejections of a class of commands."""

    kind: Literal["event", "timeout", "rejected"]
    subject: Any
    """The event class, the timeout's name, or the command class."""
    key: KeyOf = ""
    """For events only: their key."""
    starts: bool = False


def starts(*event_classes: type, key: KeyOf) -> Callable[[F], F]:
    """Mark the method that takes these events; each event starts an instance if its key has none yet.

    ``key`` is the name of an event attribute, or a function of the event, and identifies the instance; keys
    are text. An event whose key is None is not for this process. Subclasses of the events are included.
    ``ProcessManager`` shows an example.
    """
    _check_events("@starts", event_classes, key)
    return _mark(*(_Mark("event", cls, key, starts=True) for cls in event_classes))


def reacts(*event_classes: type, key: KeyOf) -> Callable[[F], F]:
    """Mark the method that takes these events; an event whose key has no instance changes nothing.

    ``key`` is that of ``starts``. ``ProcessManager`` shows an example.
    """
    _check_events("@reacts", event_classes, key)
    return _mark(*(_Mark("event", cls, key) for cls in event_classes))


def on_timeout(name: str) -> Callable[[F], F]:
    """Mark the method that takes the ``ProcessTimedOut`` of the timeout ``name``; see ``set_timeout``.

    >>> from pabal import DomainEvent
    >>> class Invoiced(DomainEvent):
    ...     order: str
    >>> class Remind(Command[None]):
    ...     order: str
    >>> class Dunning(ProcessManager):
    ...     @starts(Invoiced, key="order")
    ...     def invoiced(self, event: Invoiced) -> None:
    ...         self.set_timeout("unpaid", seconds=14 * 86_400)
    ...     @on_timeout("unpaid")
    ...     def unpaid(self, event: ProcessTimedOut) -> None:
    ...         self.send(Remind(event.key))
    >>> Dunning.timeout_methods
    {'unpaid': 'unpaid'}
    """
    if not isinstance(name, str):
        raise _definition_error(f"@on_timeout takes a name, not {name!r:.60}; write @on_timeout('unpaid')")
    return _mark(_Mark("timeout", name))


def on_rejected(*command_classes: type) -> Callable[[F], F]:
    """Mark the method that takes a ``CommandRejected`` for commands of these classes, to compensate.

    The event arrives when a command's handler has raised one of the process's ``rejections``. Subclasses of
    the commands are not included. ``ProcessManager`` shows an example.
    """
    for cls in command_classes:
        if not (isinstance(cls, type) and issubclass(cls, Command)):
            raise _definition_error(
                f"@on_rejected takes classes of Command, not {cls!r:.60}; write @on_rejected(PayOrder)"
            )
    if not command_classes:
        raise _definition_error("@on_rejected names no command class; write @on_rejected(PayOrder)")
    return _mark(*(_Mark("rejected", cls) for cls in command_classes))


def _check_events(decorator: str, event_classes: tuple[Any, ...], key: Any) -> None:
    for cls in event_classes:
        if not isinstance(cls, type):
            raise _definition_error(
                f"{decorator} takes event classes, not {cls!r:.60}; write {decorator}(OrderPlaced, …)"
            )
    if not event_classes:
        raise _definition_error(f"{decorator} names no event class; write {decorator}(OrderPlaced, …)")
    if not (isinstance(key, str) or callable(key)):
        raise _definition_error(
            f"the key of {decorator} is {key!r:.60}; give the attribute's name, or a function of the event"
        )


def _definition_error(detail: str) -> ProcessDefinitionError:
    return ProcessDefinitionError(detail, process="(unknown)")


def _mark(*marks: _Mark) -> Callable[[F], F]:
    def mark(method: F) -> F:
        setattr(method, _MARKS, [*getattr(method, _MARKS, ()), *marks])
        return method

    return mark


class ProcessManager:
    """Base class of an application's process managers, which coordinate several aggregates.

    Methods marked with ``@starts``, ``@reacts``, ``@on_timeout`` and ``@on_rejected`` take an event, change
    the annotated attributes, ``send`` commands, set and cancel timeouts, and ``end`` the instance. They must
    do nothing else, and be deterministic. The attributes are stored at each step, so each needs an annotation
    and a default.

    ``process_type`` is the durable name, without ``/``; it defaults to the class name in snake case.
    ``rejections`` are the exceptions by which command handlers say no: the process receives them through
    ``@on_rejected``. Any other exception, and a rejection that no method is marked for, is retried, and the
    event is then parked.

    Raises ProcessDefinitionError when a class is defined that cannot work. ``ProcessManagers`` runs it.

    >>> from pabal import DomainEvent
    >>> class GoodsOrdered(DomainEvent):
    ...     order: str
    >>> class GoodsArrived(GoodsOrdered):
    ...     pass
    >>> class ShipGoods(Command[None]):
    ...     order: str
    >>> class Shipping(ProcessManager):
    ...     rejections = (LookupError,)
    ...     state: str = "new"
    ...     @starts(GoodsOrdered, key="order")
    ...     def ordered(self, event: GoodsOrdered) -> None:
    ...         self.send(ShipGoods(event.order))
    ...         self.state = "ordered"
    ...     @reacts(GoodsArrived, key="order")
    ...     def arrived(self, event: GoodsArrived) -> None:
    ...         self.end()
    ...     @on_rejected(ShipGoods)
    ...     def refused(self, event: CommandRejected) -> None:
    ...         self.state = event.reason
    >>> shipping = Shipping("o-1")
    >>> shipping.take(GoodsOrdered("o-1"))
    True
    >>> shipping.state, shipping.sent[0].order
    ('ordered', 'o-1')
    """

    process_type: ClassVar[str] = ""
    rejections: ClassVar[tuple[type[Exception], ...]] = ()
    reactions: ClassVar[dict[type, Reaction]] = {}
    timeout_methods: ClassVar[dict[str, str]] = {}
    rejection_methods: ClassVar[dict[type, str]] = {}
    codec: ClassVar[StateCodec]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "process_type" not in vars(cls):
            cls.process_type = snake_case(cls.__name__)
        cls._check_attributes()
        cls.codec = StateCodec(cls, ProcessManager)
        cls.reactions = dict(cls.reactions)
        cls.timeout_methods = dict(cls.timeout_methods)
        cls.rejection_methods = dict(cls.rejection_methods)
        subjects: set[Any] = set()
        for name, method in list(vars(cls).items()):
            for mark in getattr(method, _MARKS, ()):
                if can_be_paused(method):
                    raise ProcessDefinitionError(
                        f"{name}() is async or a generator; it decides from events alone, so make "
                        "it a plain def, and send() a command for work that awaits",
                        process=cls.__qualname__,
                    )
                if mark.subject in subjects:
                    raise ProcessDefinitionError(
                        f"two methods take {mark.subject!r}; keep one", process=cls.__qualname__
                    )
                subjects.add(mark.subject)
                cls._register(name, mark)
        names = [command_type_of(each) for each in cls.rejection_methods]
        for each in names:
            if names.count(each) > 1:
                raise ProcessDefinitionError(
                    f"@on_rejected has two commands named {each}; give one of them a command_type",
                    process=cls.__qualname__,
                )

    @classmethod
    def _check_attributes(cls) -> None:
        detail = ""
        if not isinstance(cls.process_type, str) or not cls.process_type:
            detail = f"process_type is {cls.process_type!r:.60}; it must be text that is not empty"
        elif "/" in cls.process_type:
            detail = (
                f"process_type is {cls.process_type!r}; leave the / out, for it stands between type and key "
                "where the steps are stored"
            )
        rejections: Any = cls.rejections
        exception_types = rejections if isinstance(rejections, tuple) else (rejections,)
        if not all(isinstance(each, type) and issubclass(each, Exception) for each in exception_types):
            detail = (
                f"rejections is {rejections!r:.60}; it must be a tuple of exception classes, as (SoldError,)"
            )
        if detail:
            raise ProcessDefinitionError(detail, process=cls.__qualname__)

    @classmethod
    def _register(cls, method: str, mark: _Mark) -> None:
        if mark.kind == "timeout":
            cls.timeout_methods[mark.subject] = method
        elif mark.kind == "rejected":
            cls.rejection_methods[mark.subject] = method
        else:
            key_of = attrgetter(mark.key) if isinstance(mark.key, str) else mark.key
            cls.reactions[mark.subject] = Reaction(method, key_of, mark.starts)

    def __init__(self, key: str) -> None:
        self.key = key
        self.sent: list[Command[Any]] = []
        """The commands sent in this step, in order."""
        self.timeouts: dict[str, float | None] = {}
        """The timeouts changed in this step: seconds until due, or None for a cancelled one."""
        self.ended = False
        for name, default in self.codec.defaults.items():
            setattr(self, name, deepcopy(default))

    # -- what a step may do ---------------------------------------------------------------------------

    def send(self, command: Command[Any]) -> None:
        """Send a command once this step is stored. Its id is replaced by one derived from the step's.

        The commands of a step are sent one after the other, in order; after one is rejected, the rest is not
        sent. Raises ProcessDefinitionError for anything but a ``Command``.
        """
        if not isinstance(command, Command):
            raise ProcessDefinitionError(
                f"it sent {command!r:.60}; a command of a process must derive from "
                "Command, whose id prevents it from being handled twice",
                process=type(self).__qualname__,
            )
        self.sent.append(command)

    def set_timeout(self, name: str, seconds: float) -> None:
        """Have the method marked ``@on_timeout(name)`` called after ``seconds``, unless cancelled.

        Seconds count from this step, by the clock of ``ProcessManagers``; a negative number means at once.
        Timeouts survive restarts. Setting one again replaces it. Raises ProcessDefinitionError for a name
        that no method takes, for anything but a number, and for a time too far away for a date.
        """
        self._refuse_unknown(name)
        try:
            is_in_range = seconds < _MAX_TIMEOUT_SECONDS
        except TypeError as error:
            raise ProcessDefinitionError(
                f"the timeout {name!r} is set to {seconds!r:.60}; give a number of seconds, such as "
                "timedelta(…).total_seconds()",
                process=type(self).__qualname__,
            ) from error
        if not is_in_range:
            raise ProcessDefinitionError(
                f"the timeout {name!r} of {seconds!r} seconds is too long; "
                f"set one below {_MAX_TIMEOUT_SECONDS:.0e}",
                process=type(self).__qualname__,
            )
        self.timeouts[name] = max(0.0, float(seconds))

    def _refuse_unknown(self, timeout: str) -> None:
        if timeout not in self.timeout_methods:
            raise ProcessDefinitionError(
                f"no method handles the timeout {timeout!r}; mark one with @on_timeout({timeout!r})",
                process=type(self).__qualname__,
            )

    def cancel_timeout(self, name: str) -> None:
        """Cancel a timeout; harmless if it is not set.

        Raises ProcessDefinitionError for a name that no method takes.
        """
        self._refuse_unknown(name)
        self.timeouts[name] = None

    def end(self) -> None:
        """End this instance for good: later events with its key, and its timeouts, change nothing.

        Commands sent in this step are still sent.
        """
        self.ended = True

    # -- taking events --------------------------------------------------------------------------------

    @classmethod
    def reaction_to(cls, event_class: type) -> Reaction | None:
        """Return the reaction to events of a class, which may be that of the nearest base class."""
        for base in event_class.__mro__:
            if base in cls.reactions:
                return cls.reactions[base]
        return None

    @classmethod
    def key_of(cls, event: Any) -> str | None:
        """Return the key of the instance that an event belongs to, or None.

        Raises ProcessDefinitionError if the key is not text, or the event has no such attribute.
        """
        if isinstance(event, (ProcessTimedOut, CommandRejected)):
            return event.key if event.process == cls.process_type else None
        reaction = cls.reaction_to(type(event))
        try:
            key = None if reaction is None else reaction.key_of(event)
        except AttributeError as error:
            raise ProcessDefinitionError(
                f"the key of {type(event).__name__} cannot be determined: {error}; correct the "
                f"key= of {reaction.method}()",  # type: ignore[union-attr]
                process=cls.__qualname__,
            ) from error
        if key is None or type(key) is str:
            return key
        if isinstance(key, str):
            return str.__str__(key)  # the text of an enum member; its timeouts carry the key as that text
        raise ProcessDefinitionError(
            f"the key of {type(event).__name__} is {key!r:.60}, not text; give a function that "
            "returns text, such as key=lambda event: str(event.number)",
            process=cls.__qualname__,
        )

    @classmethod
    def may_start_with(cls, event: Any) -> bool:
        """Return whether an event may start an instance."""
        reaction = cls.reaction_to(type(event))
        return reaction is not None and reaction.starts

    @classmethod
    def handles_rejection_of(cls, command: Any) -> bool:
        """Return whether a method takes the rejection of a command."""
        return type(command) in cls.rejection_methods

    def take(self, event: Any) -> bool:
        """Call the method that takes ``event``; return False if there is none."""
        name: str | None
        if isinstance(event, ProcessTimedOut):
            name = self.timeout_methods.get(event.timeout)
        elif isinstance(event, CommandRejected):
            name = self._rejection_method(event.command_class)
        else:
            reaction = self.reaction_to(type(event))
            name = None if reaction is None else reaction.method
        if name is None:
            return False
        result = getattr(self, name)(event)
        if result is not None and is_yet_to_run(result):
            raise ProcessDefinitionError(
                f"{name}() returned a coroutine or generator, so it has decided nothing; make it a plain def",
                process=type(self).__qualname__,
            )
        return True

    def _rejection_method(self, command_class: str) -> str | None:
        methods = self.rejection_methods.items()
        by_name = {cls.__qualname__: method for cls, method in methods}  # as older versions stored it
        by_name |= {command_type_of(cls): method for cls, method in methods}
        return by_name.get(command_class)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key!r}{' (ended)' if self.ended else ''}>"
