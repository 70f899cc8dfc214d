"""``DomainEvent``: something that happened, named in the past tense, and never changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, dataclass_transform

import msgspec
from msgspec.structs import force_setattr

from pabal.domain.definition import EventMeta
from pabal.domain.ids import new_event_id
from pabal.domain.registry import registry
from pabal.domain.schema import EventSchema
from pabal.errors import InvalidEventError, NaiveDatetimeError

NO_METADATA: Mapping[str, Any] = MappingProxyType({})
"""The metadata of an event without metadata; compared by identity."""

_now = partial(datetime.now, UTC)


# On the class, because PEP 681 leaves open whether fields are frozen if the *metaclass* is marked.
@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class DomainEvent(
    msgspec.Struct,
    metaclass=EventMeta,
    frozen=True,
    kw_only=True,
    eq=False,
    gc=False,
    repr_omit_defaults=True,
):
    """The base class of an application's events.

    Subclasses list their fields, positional or keyword; every event also has, keyword-only,
    ``event_id`` (UUIDv7 text), ``occurred_at`` (aware, UTC), ``correlation_id``, ``causation_id`` and
    ``metadata`` (a read-only mapping of names to plain values). ``==`` compares type and payload.

    An event without a cause has ``correlation_id`` None; the events that it causes carry its ``event_id``
    as correlation id.

    >>> class TicketBought(DomainEvent):
    ...     event_type: ClassVar[str] = "ticket.bought"
    ...     seat: str
    ...     price: int = 0
    >>> TicketBought("A1") == TicketBought(seat="A1", metadata={"clerk": "kim"})
    True
    """

    event_type: ClassVar[str]
    aggregate_type: ClassVar[str | None] = None
    schema_version: ClassVar[int] = 1
    __test__: ClassVar[bool] = False
    """Keeps pytest from collecting an event named ``TestStarted`` as a test class."""

    event_id: str = msgspec.field(default_factory=new_event_id)
    occurred_at: datetime = msgspec.field(default_factory=_now)
    correlation_id: str | None = None
    causation_id: str | None = None
    metadata: Mapping[str, Any] = NO_METADATA

    @property
    def aggregate_id(self) -> str | None:
        """Return the id of the aggregate that this happened to; None if there is none."""
        return None

    def __post_init__(self) -> None:
        """Normalise the common fields: UTC time, read-only metadata."""
        try:
            if self.metadata is NO_METADATA and self.occurred_at.tzinfo is UTC:
                return
        except AttributeError:
            pass  # it is not a datetime; ``_normalise`` raises
        _normalise(self)

    def __eq__(self, other: object) -> bool:
        """Compare type and payload, but not ids, times or metadata."""
        if type(self) is not type(other):
            return NotImplemented
        values = registry.schema_of(type(self)).values
        return bool(values(self) == values(other))

    def __ne__(self, other: object) -> bool:
        """Return the opposite of ``==``; msgspec's own ``!=`` compares identity."""
        same = self.__eq__(other)
        return same if same is NotImplemented else not same

    def __hash__(self) -> int:
        """Hash type and payload, so that equal events have equal hashes."""
        return hash((type(self), registry.schema_of(type(self)).values(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Make events picklable and copyable; the read-only mapping in them alone is not."""
        fields = {name: getattr(self, name) for name in type(self).__struct_fields__}
        fields["metadata"] = dict(self.metadata)
        return _rebuild, (type(self), fields)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole event as a dictionary of plain values that ``json.dumps`` accepts."""
        schema, body = registry.schema_of(kind_of(self)), body_of(self)
        payload = dict(zip(schema.fields, schema.values(body), strict=True))
        return {
            "event_id": self.event_id,
            "event_type": schema.event_type,
            "schema_version": schema.version,
            "aggregate_type": schema.aggregate_type,
            "aggregate_id": self.aggregate_id,
            "occurred_at": self.occurred_at.isoformat(),
            "correlation_id": self.correlation_id,
            "causation_id": self.causation_id,
            "metadata": dict(self.metadata),
            "payload": msgspec.to_builtins(payload, str_keys=True),
        }


class AdoptedEvent(DomainEvent):
    """Carry an object that is not a DomainEvent through the bus, with an id and a time.

    Handlers receive the object, its ``body``; the rest is in the envelope and the delivery context.
    """

    _abstract: ClassVar[bool] = True
    body: Any

    @property
    def event_type(self) -> str:  # type: ignore[override]
        """Return the type name under which the body's class is registered."""
        return registry.schema_of(type(self.body)).event_type

    @property
    def aggregate_type(self) -> str | None:  # type: ignore[override]
        """Return the aggregate type given when the class was registered."""
        return registry.schema_of(type(self.body)).aggregate_type

    @property
    def aggregate_id(self) -> str | None:
        """Return the aggregate id of the body, as defined when its class was registered."""
        return registry.schema_of(type(self.body)).aggregate_id_of(self.body)

    def __eq__(self, other: object) -> bool:
        """Compare the bodies."""
        return isinstance(other, AdoptedEvent) and bool(self.body == other.body)

    def __hash__(self) -> int:
        """Hash the body."""
        return hash(self.body)


def adopt(event: object) -> DomainEvent:
    """Return ``event``, wrapped with an id and a time if it is a registered object of another kind.

    Raises UnregisteredEventError, and InvalidEventError for a class instead of an instance.
    """
    if isinstance(event, DomainEvent):
        return event
    if isinstance(event, type):
        name = event.__qualname__
        raise InvalidEventError(f"the class {name} is not an event; publish an instance, {name}(…)")
    registry.schema_of(type(event))
    return AdoptedEvent(body=event)


def kind_of(event: DomainEvent) -> type:
    """Return the registered class of an event: its own, or that of the body it carries."""
    return type(event.body) if type(event) is AdoptedEvent else type(event)


def body_of(event: DomainEvent) -> Any:
    """Return what a handler receives: the event, or the body it carries."""
    return event.body if type(event) is AdoptedEvent else event


def caused_by(event: DomainEvent, cause: DomainEvent) -> DomainEvent:
    """Return ``event`` with ``cause`` as its cause, and the correlation id of ``cause``.

    Ids that the caller has already set are kept.
    """
    if event.correlation_id is not None and event.causation_id is not None:
        return event
    return replace_header(
        event,
        correlation_id=event.correlation_id or cause.correlation_id or cause.event_id,
        causation_id=event.causation_id or cause.event_id,
    )


def replace_header(event: DomainEvent, **changes: Any) -> DomainEvent:
    """Copy an event with other header fields; payload objects are shared and the id is kept."""
    return msgspec.structs.replace(event, **changes)


def private_copy(event: DomainEvent, schema: EventSchema) -> DomainEvent:
    """Copy an event so deeply that changes to lists, sets or mappings in it stay in the copy."""
    if type(event) is AdoptedEvent:
        return replace_header(event, body=deepcopy(event.body))
    values = zip(schema.fields, map(deepcopy, schema.values(event)), strict=True)
    return replace_header(event, **dict(values))


def copy_if_mutable(event: DomainEvent) -> DomainEvent:
    """Return a private copy of an event that is mutable, and any other event itself."""
    schema = registry.schema_of(kind_of(event))
    return private_copy(event, schema) if schema.mutable else event


def _rebuild(cls: type[DomainEvent], fields: dict[str, Any]) -> DomainEvent:
    if not fields["metadata"]:
        del fields["metadata"]
    return cls(**fields)


def _normalise(event: DomainEvent) -> None:
    occurred_at: Any = event.occurred_at
    if not isinstance(occurred_at, datetime):
        raise InvalidEventError(
            f"occurred_at of event {event.event_type!r} is {occurred_at!r}; it must be an aware datetime"
        )
    if occurred_at.tzinfo is not UTC:
        if occurred_at.utcoffset() is None:
            raise NaiveDatetimeError(event_type=event.event_type, field="occurred_at")
        force_setattr(event, "occurred_at", occurred_at.astimezone(UTC))
    if event.metadata is not NO_METADATA:
        force_setattr(event, "metadata", _freeze_metadata(event.event_type, event.metadata))


def _freeze_metadata(event_type: str, metadata: Any) -> Mapping[str, Any]:
    if not isinstance(metadata, Mapping):
        raise InvalidEventError(f"metadata of event {event_type!r} is {metadata!r}; it must be a mapping")
    if not metadata:
        return NO_METADATA
    for name, value in metadata.items():
        plain = isinstance(value, (str, int, float, bool, type(None)))
        if not isinstance(name, str) or not plain or (isinstance(value, float) and not math.isfinite(value)):
            raise InvalidEventError(
                f"metadata of event {event_type!r} has {name!r}: {value!r}; "
                "metadata maps text to text, finite numbers, booleans or None"
            )
    return MappingProxyType(dict(metadata))
