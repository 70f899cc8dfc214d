"""How an event class is made: its definition is checked, completed, and registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field
from itertools import takewhile
from operator import attrgetter
from typing import Any

from msgspec import StructMeta

from pabal.domain.annotations import annotations_in
from pabal.domain.registry import payload_fields, registry
from pabal.domain.schema import HEADER_FIELDS, EventSchema
from pabal.errors import EventDefinitionError

_CLASS_LEVEL = ("event_type", "aggregate_type", "schema_version", "to_dict")
"""Attributes that belong to the class and therefore cannot be fields."""


class EventMeta(StructMeta):
    """Register every subclass of ``DomainEvent`` when it is defined."""

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> EventMeta:
        """Create the class, set its type name, and register it."""
        is_root = not any(isinstance(base, EventMeta) for base in bases)
        if is_root:
            return super().__new__(mcs, name, bases, namespace, **options)
        where = namespace.get("__qualname__", name)
        _check_definition(where, namespace, options)
        namespace.setdefault("event_type", name)
        own = namespace.get("__post_init__") or _inherited_post_init(bases)
        if own is not None:
            namespace["__post_init__"] = _make_post_init(bases, own)
        if any(base.__dictoffset__ and not isinstance(base, StructMeta) for base in bases):
            options.setdefault("gc", True)  # an instance dictionary may hold anything, and so form a cycle
        try:
            cls = super().__new__(mcs, name, bases, namespace, **options)
        except (TypeError, ValueError) as error:
            raise EventDefinitionError(f"{where} cannot be defined: {error}") from error
        if not namespace.get("_abstract", False):
            _register(cls)
        return cls

    def __setattr__(cls, name: str, value: Any) -> None:
        """Refuse ``@dataclass`` on an event class; set any other attribute."""
        if name == "__dataclass_params__":
            raise EventDefinitionError(
                f"{cls.__qualname__} cannot be a dataclass as well: an event class needs no decorator, "
                "leave @dataclass out"
            )
        super().__setattr__(name, value)


def _check_definition(where: str, namespace: dict[str, Any], options: dict[str, Any]) -> None:
    """Refuse a definition that would not make an event class, before msgspec makes the class."""
    if not options.get("frozen", True):
        raise EventDefinitionError(f"{where} cannot be frozen=False: events are immutable, leave it out")
    annotations = annotations_in(namespace)
    for name in HEADER_FIELDS:
        if name in annotations or name in namespace:
            raise EventDefinitionError(
                f"{where} defines {name}, which every event has already; give the field another name"
            )
    for name in _CLASS_LEVEL:
        if name in annotations and "ClassVar" not in str(annotations[name]):
            raise EventDefinitionError(
                f"{where}.{name} belongs to the class and cannot be a field; "
                f"write {name}: ClassVar[…] = …, or give the field another name"
            )
    for name, value in namespace.items():
        if isinstance(value, Field):
            raise EventDefinitionError(
                f"{where}.{name} uses dataclasses.field(), which only dataclasses know; write a default such "
                "as [], which each event copies, or msgspec.field(default_factory=…)"
            )


def _inherited_post_init(bases: tuple[type, ...]) -> Callable[[Any], None] | None:
    """Return the ``__post_init__`` of a plain mixin that comes before all event classes."""
    plain = takewhile(lambda base: not isinstance(base, EventMeta), bases)
    return next((base.__post_init__ for base in plain if hasattr(base, "__post_init__")), None)


def _make_post_init(bases: tuple[type, ...], own: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a ``__post_init__`` that sets up the common fields and then calls the class's own."""
    lineage = next(base for base in bases if isinstance(base, EventMeta)).__mro__
    root: Any = [ancestor for ancestor in lineage if isinstance(ancestor, EventMeta)][-1]

    def post_init(event: Any) -> None:
        root.__post_init__(event)
        own(event)

    return post_init


def _register(cls: Any) -> None:
    if not isinstance(cls.event_type, str) or not cls.event_type.strip():
        raise EventDefinitionError(f"{cls.__qualname__}.event_type must be a non-empty text")
    if not isinstance(cls.aggregate_type, str | None):
        raise EventDefinitionError(f"{cls.__qualname__}.aggregate_type must be a text or None")
    if type(cls.schema_version) is not int or cls.schema_version < 1:
        raise EventDefinitionError(f"{cls.__qualname__}.schema_version must be an int of at least 1")
    if callable(cls.aggregate_id):
        raise EventDefinitionError(f"{cls.__qualname__}.aggregate_id is a method; put @property above it")

    def build() -> EventSchema:
        return EventSchema(
            cls,
            event_type=cls.event_type,
            version=cls.schema_version,
            aggregate_type=cls.aggregate_type,
            aggregate_id_of=attrgetter("aggregate_id"),
            fields=payload_fields(cls),
        )

    registry.add(cls, cls.event_type, build)
