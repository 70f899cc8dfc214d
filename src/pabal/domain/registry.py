"""The mapping between event classes and event type names.

A stored row contains a type name. Names are resolved only here, and never by importing what a row says.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields as dataclass_fields
from typing import Any, TypeVar

from pabal.domain.marking import can_be_paused
from pabal.domain.schema import HEADER_FIELDS, EventSchema
from pabal.errors import (
    DecodeError,
    DuplicateEventTypeError,
    EventDefinitionError,
    UnknownEventTypeError,
    UnregisteredEventError,
    UnsupportedFieldError,
    UpcasterError,
)

Upcaster = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_T = TypeVar("_T", bound=type)


class EventRegistry:
    """Map event classes to type names and back, and old payloads to new ones."""

    def __init__(self) -> None:
        self._by_class: dict[type, EventSchema] = {}
        self._by_name: dict[str, type] = {}
        self._pending: dict[type, Callable[[], EventSchema]] = {}
        self._upcasters: dict[tuple[str, int], Upcaster] = {}

    # -- registration ---------------------------------------------------------------------------------

    def add(self, cls: type, event_type: str, build: Callable[[], EventSchema]) -> None:
        """Register ``cls`` under ``event_type``; ``build`` makes its schema, now or at first use.

        It is built at first use only if an annotation names a class that is defined later. Defining the same
        class again (a notebook cell, a module reload) replaces the earlier one.

        Raises DuplicateEventTypeError or UnsupportedFieldError, and leaves the registry unchanged then.
        """
        other = self._by_name.get(event_type)
        if other is not None and _address(other) != _address(cls):
            raise DuplicateEventTypeError(
                event_type=event_type,
                first=_address(other),
                second=_address(cls),
                same_file=other.__qualname__ == cls.__qualname__ and _file_of(other) == _file_of(cls) != "",
            )
        try:
            self._by_class[cls] = build()
        except NameError:
            self._pending[cls] = build
        self._by_name[event_type] = cls

    def add_upcaster(self, event_type: str, from_version: int, function: Upcaster) -> None:
        """Register the step from ``from_version`` to the next.

        Raises UpcasterError if another is registered for the step, if it is async or a generator, or if the
        type is not given by its name or the version not by a number.
        """
        if not isinstance(event_type, str):
            raise UpcasterError(
                "give the type by its name, the event_type of the class, so that the upcaster is found even "
                "when the class is renamed",
                event_type=event_type,
                from_version=from_version,
            )
        if type(from_version) is not int or from_version < 1:
            raise UpcasterError(
                "versions are whole numbers and start at 1", event_type=event_type, from_version=from_version
            )
        if can_be_paused(function):
            raise UpcasterError(
                f"{_address(function)} cannot be async or a generator: it runs while an event is read; make "
                "it a plain def",
                event_type=event_type,
                from_version=from_version,
            )
        known = self._upcasters.get((event_type, from_version))
        if known is not None and _address(known) != _address(function):
            raise UpcasterError(
                f"{_address(known)} already does this step", event_type=event_type, from_version=from_version
            )
        self._upcasters[event_type, from_version] = function

    # -- look-up --------------------------------------------------------------------------------------

    def schema_of(self, cls: type) -> EventSchema:
        """Return the schema of a registered class. Raises UnregisteredEventError."""
        schema = self._by_class.get(cls)
        if schema is None:
            build = self._pending.get(cls)
            if build is None:
                raise UnregisteredEventError(event_class=cls.__qualname__)
            try:
                schema = self._by_class[cls] = build()
            except NameError as error:
                raise UnsupportedFieldError(
                    event_class=cls.__qualname__,
                    field="(annotation)",
                    reason=f"{error}; define the class at module level, before its first use",
                ) from error
            del self._pending[cls]
        return schema

    def schema_named(self, event_type: str, position: int | None = None) -> EventSchema:
        """Return the schema registered under a type name. Raises UnknownEventTypeError."""
        cls = self._by_name.get(event_type)
        if cls is None:
            raise UnknownEventTypeError(event_type=event_type, position=position, reason="not registered")
        return self.schema_of(cls)

    def class_named(self, event_type: str) -> type | None:
        """Return the class registered under a type name, or None."""
        return self._by_name.get(event_type)

    def names(self) -> Iterator[tuple[str, type]]:
        """Iterate over (type name, class) of everything registered."""
        yield from self._by_name.items()

    # -- old versions ---------------------------------------------------------------------------------

    def upcast(
        self, schema: EventSchema, version: int, payload: Mapping[str, Any], position: int | None = None
    ) -> Mapping[str, Any]:
        """Bring a payload from ``version`` to the version of the class, one upcaster after another.

        Raises DecodeError if a step is missing or fails, or the stored version is newer than the class.
        """
        event_type = schema.event_type
        if version > schema.version:
            raise DecodeError(
                event_type=event_type,
                position=position,
                reason=f"stored as version {version}, the class knows versions up to "
                f"{schema.version}: a newer release wrote it, so read it with that release",
            )
        while version < schema.version:
            step = self._upcasters.get((event_type, version))
            if step is None:
                raise DecodeError(
                    event_type=event_type,
                    position=position,
                    reason=f"no upcaster from version {version} to {version + 1}",
                )
            try:
                payload = step(payload)
            except Exception as error:
                raise DecodeError(
                    event_type=event_type,
                    position=position,
                    reason=f"the upcaster from version {version} failed: {error!r}",
                ) from error
            if not isinstance(payload, Mapping):
                raise DecodeError(
                    event_type=event_type,
                    position=position,
                    reason=f"the upcaster from version {version} returned {payload!r:.60}, not a mapping",
                )
            version += 1
        return payload

    def missing_upcaster(self, event_type: str, from_version: int, to_version: int) -> int | None:
        """Return the first version without an upcaster, or None if the chain is complete."""
        steps = range(from_version, to_version)
        return next((version for version in steps if (event_type, version) not in self._upcasters), None)

    # -- isolation ------------------------------------------------------------------------------------

    @contextmanager
    def isolated(self) -> Iterator[EventRegistry]:
        """Undo on exit everything registered inside the block; for tests that define event classes."""
        saved = (dict(self._by_class), dict(self._by_name), dict(self._pending), dict(self._upcasters))
        try:
            yield self
        finally:
            self._by_class, self._by_name, self._pending, self._upcasters = saved


registry = EventRegistry()
"""The registry of ``DomainEvent`` subclasses, which register themselves when they are defined."""


def register_event(
    cls: _T,
    *,
    event_type: str | None = None,
    aggregate_type: str | None = None,
    aggregate_id: str | Callable[[Any], str | None] | None = None,
    schema_version: int = 1,
) -> _T:
    """Allow a frozen dataclass that is not a ``DomainEvent`` to be published.

    ``event_type`` defaults to the class name. ``aggregate_id`` names a field or is a function of the
    object. Returns the class. Raises EventDefinitionError for a class that is not a frozen dataclass,
    DuplicateEventTypeError, or UnsupportedFieldError.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class PriceSeen:
    ...     symbol: str
    ...     price: int
    >>> register_event(PriceSeen, event_type="price.seen", aggregate_id="symbol").__name__
    'PriceSeen'
    """
    parameters = getattr(cls, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise EventDefinitionError(
            f"{cls.__qualname__} cannot be registered: only frozen dataclasses can; "
            "write @dataclass(frozen=True), or derive the class from DomainEvent"
        )
    names = tuple(field.name for field in dataclass_fields(cls))
    if isinstance(aggregate_id, str) and aggregate_id not in names and not hasattr(cls, aggregate_id):
        raise EventDefinitionError(
            f"{cls.__qualname__} has no field {aggregate_id!r} to take its aggregate id from; it has {names}"
        )
    name = event_type or cls.__name__

    def build() -> EventSchema:
        return EventSchema(
            cls,
            event_type=name,
            version=schema_version,
            aggregate_type=aggregate_type,
            aggregate_id_of=_id_getter(aggregate_id),
            fields=names,
        )

    registry.add(cls, name, build)
    return cls


def _id_getter(source: str | Callable[[Any], str | None] | None) -> Callable[[Any], str | None]:
    if source is None:
        return lambda body: None
    if callable(source):
        return source
    return lambda body: getattr(body, source)


def upcaster(event_type: str, *, from_version: int) -> Callable[[Upcaster], Upcaster]:
    """Register a function that carries an old payload one version further.

    It takes the old payload mapping and returns that of the next version. Upcasters are chained: a payload
    of version 1 passes through 1→2 and 2→3 before a class of version 3 reads it. Raises UpcasterError.

    >>> @upcaster("invoice.sent", from_version=1)
    ... def add_currency(payload):
    ...     return {**payload, "currency": "KRW"}
    """

    def register(function: Upcaster) -> Upcaster:
        registry.add_upcaster(event_type, from_version, function)
        return function

    return register


def payload_fields(cls: type) -> tuple[str, ...]:
    """Return the names of a DomainEvent class's own fields, without those every event has."""
    return tuple(name for name in cls.__struct_fields__ if name not in HEADER_FIELDS)  # type: ignore[attr-defined]


def _file_of(cls: type) -> str:
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or ""


def _address(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"
