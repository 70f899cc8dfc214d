"""Encode an aggregate's state as a snapshot, and restore it only if it is certain to be the same."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, TypeVar, get_origin, get_type_hints
from weakref import WeakKeyDictionary
from zlib import crc32

import msgspec
from msgspec import inspect

from pabal.domain.aggregate import Aggregate
from pabal.errors import SnapshotError, SnapshotOfOtherClassError

A = TypeVar("A", bound=Aggregate)
_encode = msgspec.msgpack.encode
_BYTES = (bytes, bytearray, memoryview)
_CLASSES_WITH_FIELDS = (
    inspect.StructType,
    inspect.DataclassType,
    inspect.NamedTupleType,
    inspect.TypedDictType,
)
_ENCODING_VERSION = 2
"""The version of the encoding; a snapshot with another one is ignored, and the events are replayed."""


class Snapshot(NamedTuple):
    """Hold an encoded state, and the version and last event it was taken at."""

    class_name: str
    snapshot_version: int
    layout: int
    version: int
    event_id: bytes
    state: bytes


def take_snapshot(aggregate: Aggregate, event_id: bytes) -> bytes:
    """Encode the state of an aggregate whose last stored event is ``event_id``.

    Raises SnapshotError if the state would not be restored equal: an attribute has no annotation, or its
    value is not preserved when encoded as its annotated type.
    """
    cls = type(aggregate)
    codec = _codec_of(cls)
    state = _state_of(aggregate)
    unknown = sorted(state.keys() - codec.names)
    if unknown:
        raise SnapshotError(
            reason=f"{cls.__qualname__}.{unknown[0]} has no annotation; write one in the class body"
        )
    try:
        # Times as text: msgpack's own timestamps keep the instant but lose the offset, and so the local date.
        data = _encode(msgspec.to_builtins(state, builtin_types=_BYTES))
        restored = codec.decode(data)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise SnapshotError(reason=f"the state of {cls.__qualname__} cannot be encoded: {error}") from error
    for name, value in state.items():
        if restored[name] != value or type(restored[name]) is not type(value):
            raise SnapshotError(
                reason=f"{cls.__qualname__}.{name} would come back as {restored[name]!r:.80}, not "
                f"{value!r:.80}; annotate it more exactly"
            )
    snapshot = Snapshot(
        cls.__qualname__, cls.snapshot_version, codec.layout, aggregate.stored_version, event_id, data
    )
    body = _encode(tuple(snapshot))
    return crc32(body).to_bytes(4, "big") + body


def read_snapshot(cls: type[Aggregate], data: bytes) -> Snapshot:
    """Decode what ``take_snapshot`` encoded.

    Raises SnapshotOfOtherClassError, or SnapshotError if it is damaged or the class has changed since.
    """
    if len(data) < 4 or crc32(data[4:]).to_bytes(4, "big") != data[:4]:
        raise SnapshotError(reason="it is damaged")
    try:
        snapshot = Snapshot._make(
            msgspec.msgpack.decode(data[4:], type=tuple[str, int, int, int, bytes, bytes])
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise SnapshotError(reason=f"it is damaged: {error}") from error
    if snapshot.class_name != cls.__qualname__:
        raise SnapshotOfOtherClassError(
            reason="it is of another class", found=snapshot.class_name, wanted=cls.__qualname__
        )
    if (snapshot.snapshot_version, snapshot.layout) != (cls.snapshot_version, _codec_of(cls).layout):
        raise SnapshotError(reason=f"{cls.__qualname__} has changed since it was taken")
    return snapshot


def restore(cls: type[A], aggregate_id: str, snapshot: Snapshot) -> A:
    """Return the aggregate as it was. Raises SnapshotError if the state does not fit its class."""
    try:
        state = _codec_of(cls).decode(snapshot.state)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise SnapshotError(reason=f"{cls.__qualname__} cannot read it: {error}") from error
    aggregate = cls(aggregate_id)
    vars(aggregate).update(state)
    aggregate.replayed_to(snapshot.version)
    return aggregate


def _state_of(aggregate: Aggregate) -> dict[str, Any]:
    return {name: value for name, value in vars(aggregate).items() if name not in _BASE_ATTRIBUTES}


_BASE_ATTRIBUTES = frozenset(vars(Aggregate("any")))


class _Codec:
    """Encode and decode the annotated attributes of one class."""

    def __init__(self, cls: type[Aggregate]) -> None:
        slot = next((name for base in cls.__mro__ for name in _slots_of(base)), None)
        if slot is not None:
            raise SnapshotError(
                reason=f"{cls.__qualname__} keeps {slot} in __slots__, which snapshots leave out; remove "
                "__slots__"
            )
        try:
            hints = get_type_hints(cls, include_extras=True)
        except NameError as error:
            raise SnapshotError(reason=f"an annotation of {cls.__qualname__} is unknown: {error}") from error
        fields = {
            name: hint
            for name, hint in hints.items()
            if get_origin(hint) is not ClassVar and hint is not ClassVar
        }
        self.names = fields.keys()
        try:
            shapes = sorted((name, repr(hint), _shape_of(hint)) for name, hint in fields.items())
            self._decoders = {name: msgspec.msgpack.Decoder(hint) for name, hint in fields.items()}
        except TypeError as error:
            raise SnapshotError(
                reason=f"{cls.__qualname__} has an attribute that cannot be encoded: {error}"
            ) from error
        self.layout = crc32(repr([_ENCODING_VERSION, *shapes]).encode())

    def decode(self, data: bytes) -> dict[str, Any]:
        """Return the attributes by name, each as its annotated type."""
        raw = msgspec.msgpack.decode(data, type=dict[str, msgspec.Raw])
        return {name: self._decoders[name].decode(value) for name, value in raw.items()}


def _shape_of(hint: Any) -> str:
    """Describe the type of an attribute, including the fields of the classes in it, to detect changes."""
    seen: set[type] = set()

    def shape(part: Any) -> Any:
        if isinstance(part, _CLASSES_WITH_FIELDS):
            if part.cls in seen:
                return part.cls.__qualname__
            seen.add(part.cls)
            return part.cls.__qualname__, [
                (getattr(each, "encode_name", each.name), shape(each.type)) for each in part.fields
            ]
        if isinstance(part, inspect.Type):
            return type(part).__name__, [shape(getattr(part, name)) for name in part.__struct_fields__]
        if isinstance(part, tuple):
            return [shape(each) for each in part]
        return part.__qualname__ if isinstance(part, type) else part

    return repr(shape(inspect.type_info(hint)))


def _slots_of(cls: type) -> list[str]:
    slots = vars(cls).get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


_codecs: WeakKeyDictionary[type[Aggregate], _Codec] = WeakKeyDictionary()


def _codec_of(cls: type[Aggregate]) -> _Codec:
    codec = _codecs.get(cls)
    if codec is None:
        codec = _codecs[cls] = _Codec(cls)
    return codec
