"""``Aggregate``: it decides by its rules, and its state follows only from its events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import Field, is_dataclass
from functools import wraps
from inspect import isfunction
from typing import Any, ClassVar, Self, TypeVar

from pabal.domain.annotations import annotations_in
from pabal.domain.event import DomainEvent, adopt, body_of
from pabal.domain.marking import can_be_paused, mark_with, snake_case, with_overrides
from pabal.errors import (
    AggregateDefinitionError,
    EventNotAppliedError,
    EventOfOtherAggregateError,
    EventWithoutAggregateError,
    SpoiledAggregateError,
)

_M = TypeVar("_M", bound=Callable[..., None])
_APPLIES = "_pabal_applies"


def applies(*event_classes: type) -> Callable[[_M], _M]:
    """Mark the method that changes the state for these events.

    It must only set attributes and record nothing, because it runs again whenever the aggregate is loaded.
    ``Aggregate`` shows an example. Raises AggregateDefinitionError for anything that is not a class.
    """
    return mark_with(
        _APPLIES,
        "@applies",
        event_classes,
        lambda detail: AggregateDefinitionError(detail, aggregate="(unknown)"),
    )


class Aggregate:
    """The base class of an application's aggregates: pure, deterministic, without clock or I/O.

    Command methods check the rules, raise if one is broken, and ``record`` events; methods marked with
    ``@applies`` change the state. Alternatively, override ``apply`` and use pattern matching. A command
    method that raises leaves nothing recorded.

    ``aggregate_type`` defaults to the class name in snake case, and must be that of the events.

    >>> class SeatTaken(DomainEvent):
    ...     event_type: ClassVar[str] = "seat.taken"
    ...     aggregate_type: ClassVar[str] = "seat"
    ...     number: str
    ...     guest: str
    ...     @property
    ...     def aggregate_id(self) -> str:
    ...         return self.number
    >>> class Seat(Aggregate):
    ...     guest: str | None = None
    ...     def take(self, guest: str) -> None:
    ...         if self.guest is not None:
    ...             raise ValueError(f"taken by {self.guest}")
    ...         self.record(SeatTaken(self.id, guest))
    ...     @applies(SeatTaken)
    ...     def _taken(self, event: SeatTaken) -> None:
    ...         self.guest = event.guest
    >>> seat = Seat("A1")
    >>> seat.take("kim")
    >>> seat.guest, seat.version, len(seat.pending)
    ('kim', 1, 1)
    """

    aggregate_type: ClassVar[str] = ""
    snapshot_version: ClassVar[int] = 1
    """Raise it when the meaning of a state attribute changes; older snapshots are then not used."""
    _appliers: ClassVar[dict[type, Callable[[Any, Any], None]]] = {}
    _found: ClassVar[dict[type, Callable[[Any, Any], None]]] = {}
    """``_appliers``, and subclasses of its events that were seen."""
    _mutable_defaults: ClassVar[dict[str, Any]] = {}
    """Mutable defaults, such as lists; every aggregate gets its own copy."""

    def __init__(self, aggregate_id: str) -> None:
        if not isinstance(aggregate_id, str) or not aggregate_id:
            raise AggregateDefinitionError(
                f"its id is {aggregate_id!r}; it must be text that is not empty",
                aggregate=type(self).__name__,
            )
        if not aggregate_id.isascii() and not _has_utf8(aggregate_id):
            raise AggregateDefinitionError(
                f"its id is {aggregate_id!r}; it cannot be encoded as UTF-8, so its events could not be "
                "stored",
                aggregate=type(self).__name__,
            )
        self._id = aggregate_id
        self._version = 0
        self._pending: list[DomainEvent] = []
        self._spoiled = False
        self._applying = False
        for name, default in self._mutable_defaults.items():
            setattr(self, name, deepcopy(default))

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check_attributes(cls)
        own = vars(cls)
        if "aggregate_type" not in own:
            cls.aggregate_type = snake_case(cls.__name__)
        cls._mutable_defaults = _find_mutable_defaults(own, cls._mutable_defaults)
        cls._appliers = with_overrides(cls, cls._appliers, _APPLIES) | _own_appliers(cls)
        cls._found = dict(cls._appliers)
        for name, value in list(own.items()):
            is_command = isfunction(value) and not name.startswith("_") and name != "apply"
            if is_command and not hasattr(value, _APPLIES) and value not in cls._appliers.values():
                setattr(cls, name, _all_or_nothing(value))

    # -- what it is -----------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Return the id, unique within ``aggregate_type``."""
        return self._id

    @property
    def version(self) -> int:
        """Return the number of events that led to this state, including the pending ones."""
        return self._version

    @property
    def stored_version(self) -> int:
        """Return the version without the pending events."""
        return self._version - len(self._pending)

    @property
    def pending(self) -> tuple[Any, ...]:
        """Return the events that are recorded but not stored yet, oldest first."""
        return tuple(body_of(event) for event in self._pending)

    # -- what happens ---------------------------------------------------------------------------------

    def record(self, event: Any) -> None:
        """Record an event: apply it, and keep it until the repository stores it.

        Raises EventWithoutAggregateError, EventOfOtherAggregateError, EventNotAppliedError,
        SpoiledAggregateError or, if called while an event is applied, AggregateDefinitionError. Nothing is
        recorded then.
        """
        if self._spoiled:
            self.refuse_if_spoiled()
        if self._applying:
            self._refuse_in_applier(event)
        adopted = event if isinstance(event, DomainEvent) else adopt(event)
        if adopted.aggregate_id != self._id or adopted.aggregate_type != self.aggregate_type:
            self._refuse(adopted)
        self._applying = True
        try:
            self.apply(event)
        except EventNotAppliedError:
            raise
        except BaseException:
            self._spoiled = True
            raise
        finally:
            self._applying = False
        self._pending.append(adopted)
        self._version += 1

    def apply(self, event: Any) -> None:
        """Change the state for an event, with the method marked with ``@applies`` for its class.

        Override it to use pattern matching instead. Raises EventNotAppliedError.
        """
        applier = self._found.get(type(event))
        if applier is None:
            applier = self._inherited_applier(type(event))
        applier(self, event)

    def replay(self, events: Iterable[Any]) -> Self:
        """Apply earlier events in order, and return the aggregate."""
        apply = self.apply
        self._applying = True
        try:
            for event in events:
                apply(event)
                self._version += 1
        finally:
            self._applying = False
        return self

    def replayed_to(self, version: int) -> None:
        """Set the version of a state that was restored from a snapshot."""
        self._version = version

    def take_pending(self) -> list[DomainEvent]:
        """Return the pending events and forget them; for the code that stores them."""
        self.refuse_if_spoiled()
        taken, self._pending = self._pending, []
        return taken

    @property
    def is_spoiled(self) -> bool:
        """Return whether the state contains events that were taken back."""
        return self._spoiled

    def refuse_if_spoiled(self) -> None:
        """Raise SpoiledAggregateError if the state contains events that were taken back."""
        if self._spoiled:
            raise SpoiledAggregateError(aggregate=type(self).__name__, aggregate_id=self._id)

    def _inherited_applier(self, event_class: type) -> Callable[[Any, Any], None]:
        for base in event_class.__mro__[1:]:
            applier = self._appliers.get(base)
            if applier is not None:
                self._found[event_class] = applier
                return applier
        raise EventNotAppliedError(aggregate=type(self).__name__, event_type=event_class.__name__)

    def _refuse(self, event: DomainEvent) -> None:
        if event.aggregate_id is None:
            raise EventWithoutAggregateError(aggregate=type(self).__name__, event_type=event.event_type)
        raise EventOfOtherAggregateError(
            event_type=event.event_type,
            found=f"{event.aggregate_type}/{event.aggregate_id}",
            wanted=f"{self.aggregate_type}/{self._id}",
        )

    def _refuse_in_applier(self, event: Any) -> None:
        raise AggregateDefinitionError(
            f"{type(event).__name__} is recorded while an event is applied, so it would be recorded again "
            "at every load; record it in the command method",
            aggregate=type(self).__qualname__,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id!r} at version {self._version}>"


def refuse_dataclass(cls: type[Aggregate]) -> None:
    """Raise AggregateDefinitionError for a dataclass: its ``__init__`` takes fields in place of the id."""
    if is_dataclass(cls):
        raise AggregateDefinitionError(
            "it cannot be a dataclass as well, whose __init__ takes no id; leave @dataclass out",
            aggregate=cls.__qualname__,
        )


_RESERVED = frozenset(
    (
        *vars(Aggregate("any")),
        *(name for name, value in vars(Aggregate).items() if isinstance(value, property)),
    )
)
"""What repositories read: an attribute of that name would hide, say, that events were recorded."""


def _check_attributes(cls: type[Aggregate]) -> None:
    """Raise AggregateDefinitionError for an attribute that an aggregate class cannot have."""
    own = vars(cls)
    for name in (*own, *annotations_in(own)):
        if name in _RESERVED:
            raise AggregateDefinitionError(
                f"{name} is an attribute of every aggregate; give yours another name",
                aggregate=cls.__qualname__,
            )
        value = own.get(name)
        if isinstance(value, Field):
            raise AggregateDefinitionError(
                f"{name} uses dataclasses.field(), which only dataclasses know; write a default such as "
                "[], which each aggregate copies",
                aggregate=cls.__qualname__,
            )
        if isfunction(value) and can_be_paused(value):
            raise AggregateDefinitionError(
                f"{name}() cannot be async or a generator; an aggregate decides "
                "from its state alone, so fetch other data first and pass it in",
                aggregate=cls.__qualname__,
            )


def _own_appliers(cls: type[Aggregate]) -> dict[type, Callable[[Any, Any], None]]:
    """Return the methods marked with ``@applies`` in the body of a class, by event class."""
    found: dict[type, Callable[[Any, Any], None]] = {}
    for name, value in vars(cls).items():
        for event_class in getattr(value, _APPLIES, ()) if isfunction(value) else ():
            if event_class in found:
                raise AggregateDefinitionError(
                    f"{found[event_class].__name__}() and {name}() both apply {event_class.__name__}; "
                    "keep one",
                    aggregate=cls.__qualname__,
                )
            found[event_class] = value
    return found


def _find_mutable_defaults(own: Mapping[str, Any], inherited: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of annotated attributes that are mutable."""
    annotated = [name for name, hint in annotations_in(own).items() if "ClassVar" not in str(hint)]
    values = {**inherited, **{name: own[name] for name in (*inherited, *annotated) if name in own}}
    return {name: value for name, value in values.items() if type(value).__hash__ is None}


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _all_or_nothing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command method so that, if it raises, the events it recorded are taken back."""

    @wraps(method)
    def run(self: Aggregate, *args: Any, **kwargs: Any) -> Any:
        before = len(self._pending)
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            excess = len(self._pending) - before
            if excess > 0:
                # The state cannot be undone: the user's appliers only go forward.
                del self._pending[before:]
                self._version -= excess
                self._spoiled = True
            raise

    return run
