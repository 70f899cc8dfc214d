"""JSON Schema of payload types: msgspec's own, plus the formats of times and of mapping keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

import msgspec
from msgspec import inspect

_ARRAYS = (
    inspect.ListType,
    inspect.SetType,
    inspect.FrozenSetType,
    inspect.VarTupleType,
    inspect.CollectionType,
)
_NAMED = (inspect.StructType, inspect.DataclassType, inspect.NamedTupleType, inspect.TypedDictType)
_Schema = dict[str, Any]
_MOMENTS = {None: "date-time", True: "date-time", False: "date-time-local"}
"""The format of a ``datetime``, by whether it has an offset. Source: the OpenAPI Format Registry."""
_ANY_TIME = ({"type": "string", "format": "time"}, {"type": "string", "format": "partial-time"})
"""A ``time`` with or without an offset; msgspec uses these formats if it is always one of the two."""
_OF_DAY = {True: "time", False: "partial-time"}
TEXT: _Schema = {"type": "string"}
WHOLE: _Schema = {"type": "string", "pattern": "^-?(0|[1-9][0-9]*)$"}
NUMBER: _Schema = {"type": "string", "pattern": "^-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?$"}
"""The property names of an object whose keys are text, whole numbers, or numbers."""
_NAMES: dict[type, _Schema] = {
    inspect.IntType: WHOLE,
    inspect.FloatType: NUMBER,
    inspect.DecimalType: {"type": "string", "format": "decimal"},
    inspect.UUIDType: {"type": "string", "format": "uuid"},
    inspect.DateType: {"type": "string", "format": "date"},
    inspect.TimeDeltaType: {"type": "string", "format": "duration"},
    inspect.BytesType: {"type": "string", "contentEncoding": "base64"},
}


def describe_payloads(
    types: Sequence[Any], ref_template: str = "#/$defs/{name}"
) -> tuple[tuple[_Schema, ...], dict[str, _Schema]]:
    """Return a schema for each type, and the definitions that these refer to, by name.

    For ``datetime``, and for ``time`` without a declared offset, msgspec only says that they are strings;
    here a ``datetime`` has the format ``date-time``, and a ``time`` one of two. For the keys of a mapping
    msgspec says nothing; here they are described by ``propertyNames``.
    """
    described, components = msgspec.json.schema_components(types, ref_template=ref_template)
    seen: set[Any] = set()
    ahead = list(zip(described, inspect.multi_type_info(types), strict=True))
    while ahead:
        schema, info = ahead.pop()
        if isinstance(info, inspect.DateTimeType):
            schema.setdefault("format", _MOMENTS[info.tz])
        elif isinstance(info, inspect.TimeType):
            if schema.get("type") == "string" and "format" not in schema:
                del schema["type"]
                schema["anyOf"] = [dict(each) for each in _ANY_TIME]
        elif isinstance(info, _NAMED):
            if info.cls not in seen:
                seen.add(info.cls)
                ahead += _fields(info, components)
        else:
            ahead += _inside(schema, info)
    return described, components


def _fields(info: Any, components: dict[str, _Schema]) -> Iterator[tuple[_Schema, Any]]:
    """Yield the schema and the type of each field of a class, if its fields are described by name."""
    of = ", ".join(each.__name__ if isinstance(each, type) else repr(each) for each in get_args(info.cls))
    short = re.sub(r"[^a-zA-Z0-9.\-_]", "_", f"{info.cls.__name__}[{of}]" if of else info.cls.__name__)
    long = re.sub(r"[^a-zA-Z0-9.\-_]", "_", f"{info.cls.__module__}.{info.cls.__qualname__}")
    described = components.get(short) or components.get(long) or {}
    properties = described.get("properties", {})
    for field in info.fields:
        yield properties.get(getattr(field, "encode_name", None) or field.name, {}), field.type


def _inside(schema: _Schema, info: Any) -> Iterable[tuple[_Schema, Any]]:
    """Return the parts of a schema with their types; a part without a schema of its own is an empty one."""
    if isinstance(info, inspect.Metadata):
        return [(schema, info.type)]
    if isinstance(info, _ARRAYS):
        return [(_part(schema, "items"), info.item_type)]
    if isinstance(info, inspect.TupleType):
        return zip(schema.get("prefixItems", ()), info.item_types, strict=False)
    if isinstance(info, inspect.DictType):
        if schema:
            schema.setdefault("propertyNames", _names(info.key_type))
        return [(_part(schema, "additionalProperties"), info.value_type)]
    if isinstance(info, inspect.UnionType):
        return [(_choice(schema, each), each) for each in info.types]
    return []


def _names(info: Any) -> _Schema:
    """Describe the property names that keys of a type are written as, without limits of numbers."""
    if isinstance(info, inspect.Metadata):
        return _names(info.type)
    if isinstance(info, inspect.UnionType):
        choices = [_names(each) for each in info.types]
        return TEXT.copy() if TEXT in choices else {"anyOf": choices}
    if isinstance(info, inspect.LiteralType):
        return {"enum": [str(value) for value in info.values]}
    if isinstance(info, inspect.EnumType):
        return {"enum": sorted(str(member.value) for member in info.cls)}
    if isinstance(info, inspect.DateTimeType):
        return {"type": "string", "format": _MOMENTS[info.tz]}
    if isinstance(info, inspect.TimeType):
        if info.tz is None:
            return {"anyOf": [dict(each) for each in _ANY_TIME]}
        return {"type": "string", "format": _OF_DAY[info.tz]}
    return _NAMES.get(type(info), TEXT).copy()


def _part(schema: _Schema, name: str) -> _Schema:
    part = schema.get(name)
    return part if isinstance(part, dict) else {}


def _choice(schema: _Schema, info: Any) -> _Schema:
    """Return the choice in a union that describes a type; a union has at most one per JSON type."""
    if isinstance(info, inspect.Metadata):
        return _choice(schema, info.type)
    kind = None
    if isinstance(info, (inspect.DateTimeType, inspect.TimeType)):
        kind = "string"
    elif isinstance(info, inspect.DictType):
        kind = "object"
    elif isinstance(info, (*_ARRAYS, inspect.TupleType)):
        kind = "array"
    choices = (each for each in schema.get("anyOf", ()) if kind is not None and each.get("type") == kind)
    return next(choices, {})
