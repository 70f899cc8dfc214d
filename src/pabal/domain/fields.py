"""Facts that follow from a field's declared type: can it be stored, can its values be changed?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect

_KEYS = (
    inspect.AnyType,
    inspect.StrType,
    inspect.IntType,
    inspect.FloatType,
    inspect.DecimalType,
    inspect.EnumType,
    inspect.LiteralType,
    inspect.UUIDType,
    inspect.DateTimeType,
    inspect.DateType,
    inspect.TimeType,
    inspect.TimeDeltaType,
    inspect.BytesType,
)
"""Types that can be a key of a JSON object, written as text."""

_MUTABLE = (
    inspect.ListType,
    inspect.SetType,
    inspect.DictType,
    inspect.ByteArrayType,
    inspect.TypedDictType,
    inspect.AnyType,
)
_CONSTRAINTS = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")


def annotations_of(cls: type) -> dict[str, Any]:
    """Return the types of a struct's or dataclass's fields, with type variables of generic bases resolved.

    Raises NameError while an annotation names something that is not defined yet.
    """
    if issubclass(cls, msgspec.Struct):
        return {field.name: field.type for field in msgspec.structs.fields(cls)}
    return get_type_hints(cls, include_extras=True)


def walk(node: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield every type node below ``node``, each struct or dataclass once."""
    seen = set() if seen is None else seen
    if id(node) in seen:
        return
    seen.add(id(node))
    yield node
    for attribute in ("item_type", "key_type", "value_type", "type"):
        child = getattr(node, attribute, None)
        if isinstance(child, inspect.Type):
            yield from walk(child, seen)
    for attribute in ("item_types", "types"):
        for child in getattr(node, attribute, ()) or ():
            yield from walk(child, seen)
    for field in getattr(node, "fields", ()) or ():
        yield from walk(field.type, seen)


def unsupported_reason(annotation: Any, nodes: list[Any]) -> str | None:
    """Return the reason why values of a type cannot be stored and read back, or None if they can."""
    if msgspec.UnsetType in get_args(annotation):
        return "UNSET has no JSON form, use None"
    for node in nodes:
        if isinstance(node, inspect.CustomType):
            return f"{node.cls!r} has no JSON form"
        if isinstance(node, (inspect.RawType, inspect.ExtType)):
            return "a raw message has no type of its own"
        if isinstance(node, inspect.DictType):
            key = node.key_type
            kinds = key.types if isinstance(key, inspect.UnionType) else (key,)
            for kind in kinds:
                if not isinstance(kind, _KEYS):
                    return f"a mapping cannot have {_name_of(kind)} keys in JSON"
    return None


def find_refused_field(cls: type, names: tuple[str, ...]) -> str:
    """Find the field that msgspec refuses, by trying each one alone."""
    annotations = annotations_of(cls)
    for name in names:
        try:
            msgspec.json.Decoder(annotations[name])
        except Exception:
            return name
    return "(class)"


def is_mutable(node: Any) -> bool:
    """Return whether a handler could change a value of this type that other handlers also see."""
    if isinstance(node, inspect.StructType):
        cls: Any = get_origin(node.cls) or node.cls  # ``Box[int]`` is no class
        return not cls.__struct_config__.frozen
    if isinstance(node, inspect.DataclassType):
        parameters = getattr(get_origin(node.cls) or node.cls, "__dataclass_params__", None)
        return not (parameters is not None and parameters.frozen)
    return isinstance(node, _MUTABLE)


def is_constrained(node: Any) -> bool:
    """Return whether the field may refuse a value even though its type is right."""
    if isinstance(node, inspect.LiteralType):
        return True
    return any(getattr(node, name, None) is not None for name in _CONSTRAINTS)


def holds_floats(node: Any) -> bool:
    """Return whether a value may be a NaN or infinite float."""
    return isinstance(node, (inspect.FloatType, inspect.AnyType))


def _name_of(node: Any) -> str:
    return type(node).__name__.removesuffix("Type").lower()
