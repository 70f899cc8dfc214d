"""Whether a value comes back from JSON unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields as dataclass_fields
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from types import NoneType
from typing import Any
from uuid import UUID

import msgspec

_MINUTE = timedelta(minutes=1)

# If a field gave a value of one of these types back unchanged, it does so for every value of exactly that
# type, except where a test below says otherwise. So checking the types takes the place of a round trip.
_ATOMIC = frozenset((str, int, bool, NoneType, UUID, date, time, timedelta, datetime, Decimal, float))
_LEAVES = _ATOMIC - {datetime, time} | {bytes}


def _keeps_offset(moment: datetime | time) -> bool:
    """Return whether a time's offset can be written: in JSON (RFC 3339) an offset has no seconds."""
    zone = moment.tzinfo
    if zone is None or zone is UTC:
        return True
    offset = moment.utcoffset()
    return offset is not None and not offset % _MINUTE


VALUE_TESTS: dict[type, Callable[[Any], bool]] = {
    float: math.isfinite,
    Decimal: Decimal.is_finite,
    datetime: _keeps_offset,
    time: _keeps_offset,
}
"""Tests for values whose type is verified; a value that fails needs a round trip to find the reason."""


def is_settled_by_type(before: Any, after: Any) -> bool:
    """Return whether all values of ``before``'s type survive a field that returned ``after`` for it."""
    kind = type(before)
    if kind is not type(after):
        return False
    # A combination of flags is different: not every codec knows all combinations.
    return kind in _ATOMIC or (isinstance(before, Enum) and not isinstance(before, Flag))


def is_same(before: Any, after: Any) -> bool:
    """Return whether ``after`` equals ``before`` in value, type, scale and offset.

    ``==`` is not enough: it accepts ``[0.5]`` for ``[Decimal("0.5")]``, and it calls two times for the same
    instant unequal in the hour when clocks are set back.
    """
    kind = type(before)
    if kind is not type(after):
        if kind is int and type(after) is float:
            return bool(before == after)  # an int is accepted for a field that is declared float
        # An object of a subclass may come back as its base class, but not lose fields of a struct.
        if not isinstance(before, type(after)) or _fields_of(before) is not None:
            return False
    if kind in _LEAVES:
        return bool(before == after)
    if isinstance(after, (datetime, time)):
        return (
            before.replace(tzinfo=None) == after.replace(tzinfo=None)
            and before.utcoffset() == after.utcoffset()
            and (before.tzinfo is None) == (after.tzinfo is None)
        )
    if isinstance(after, (list, tuple)):
        return len(before) == len(after) and all(map(is_same, before, after))
    if isinstance(after, dict):
        pairs = zip(before.items(), after.items(), strict=False)
        return len(before) == len(after) and all(is_same(old, new) for old, new in pairs)
    if isinstance(after, (set, frozenset)):
        return len(before) == len(after) and _has_same_elements(before, after)
    names = _fields_of(before)
    if names is not None:
        return all(is_same(getattr(before, name), getattr(after, name)) for name in names)
    return bool(before == after)


def _has_same_elements(before: Iterable[Any], after: Iterable[Any]) -> bool:
    twins = {element: element for element in after}
    for element in before:
        if element in twins:
            if not is_same(element, twins[element]):
                return False
        elif not any(is_same(element, one) for one in after):
            return False  # reached for equal times that ``==`` and ``hash`` take for different, see above
    return True


def first_non_finite(value: Any) -> Any:
    """Return the first NaN or infinity in ``value``, searching containers, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else value
    if isinstance(value, Decimal):
        return None if value.is_finite() else value
    if value is None or isinstance(value, (str, bytes, int, datetime)):
        return None
    for child in _children_of(value):
        bad = first_non_finite(child)
        if bad is not None:
            return bad
    return None


def _children_of(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return (*value.keys(), *value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    return [getattr(value, name) for name in _fields_of(value) or ()]


def _fields_of(value: Any) -> tuple[str, ...] | None:
    """Return the field names of a struct or dataclass, None for anything else."""
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if hasattr(type(value), "__dataclass_fields__"):
        return tuple(field.name for field in dataclass_fields(value))
    return None
