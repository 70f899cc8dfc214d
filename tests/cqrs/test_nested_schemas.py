"""Changes inside structs, lists and mappings, and whether stored events remain readable."""

from __future__ import annotations

from datetime import datetime, time
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID

import msgspec
import pytest

from pabal import DomainEvent, InMemoryEventStorage
from pabal.domain import registry
from pabal.domain.schema_check import SchemaFinding, check_schema
from pabal.domain.schema_export import export_schema
from pabal.errors import DecodeError


def _address(*fields: Any) -> Any:
    return msgspec.defstruct("Address", fields, frozen=True)


def _export(kind: Any) -> dict[str, Any]:
    meta: Any = type(DomainEvent)
    names = {"__module__": __name__, "event_type": "schema-nested.moved", "__annotations__": {"to": kind}}
    meta("Moved", (DomainEvent,), names)
    return export_schema()


def _findings(before: Any, after: Any) -> list[SchemaFinding]:
    with registry.isolated():
        snapshot = _export(before)
    with registry.isolated():
        _export(after)
        return [each for each in check_schema(snapshot) if each.event_type == "schema-nested.moved"]


OLD: Any = _address(("street", str))
GROWN: Any = _address(("street", str), ("code", str | None, None))


class Point(NamedTuple):
    x: int


class LongerPoint(NamedTuple):
    x: float
    y: int = 0


class FullPoint(NamedTuple):
    x: int
    y: int


PAIR: Any = msgspec.defstruct("Pair", [("a", int)], array_like=True, frozen=True)
LONGER_PAIR: Any = msgspec.defstruct("Pair", [("a", int), ("b", int, 3)], array_like=True, frozen=True)


@pytest.mark.parametrize(
    ("before", "after", "value"),
    [
        (Point, LongerPoint, Point(1)),
        (tuple[Point, ...], tuple[LongerPoint, ...], (Point(1), Point(2))),
        (PAIR, LONGER_PAIR, PAIR(1)),
        (tuple[int, str], tuple[float, str | None], (1, "a")),
        (UUID, str, UUID(int=7)),
        (UUID | None, str | None, UUID(int=7)),
        (tuple[UUID, ...], tuple[str, ...], (UUID(int=7),)),
    ],
)
async def test_appended_defaults_and_uuids_changed_to_text_are_no_failure(
    before: Any, after: Any, value: Any
) -> None:
    """The check would fail over a new NamedTuple field with a default, although old events are readable."""
    storage = InMemoryEventStorage()
    with registry.isolated():
        snapshot = _export(before)
        await storage.store_event(registry.schema_named("schema-nested.moved").cls(value))
    with registry.isolated():
        _export(after)
        assert [each for each in check_schema(snapshot) if each.event_type == "schema-nested.moved"] == []
        assert len([envelope async for envelope in storage.read()]) == 1


@pytest.mark.parametrize(
    ("before", "after", "value"),
    [
        (LongerPoint, Point, LongerPoint(1, 2)),
        (Point, FullPoint, Point(1)),
        (tuple[str, int], tuple[UUID, int], ("a", 1)),
        (tuple[int], tuple[int, int], (1,)),
    ],
)
async def test_a_positional_type_that_cannot_read_old_values_is_a_failure(
    before: Any, after: Any, value: Any
) -> None:
    """The application would start, and park every event stored before."""
    storage = InMemoryEventStorage()
    with registry.isolated():
        snapshot = _export(before)
        await storage.store_event(registry.schema_named("schema-nested.moved").cls(value))
    with registry.isolated():
        _export(after)
        (finding,) = [each for each in check_schema(snapshot) if each.event_type == "schema-nested.moved"]
        assert (finding.level, finding.field) == ("failure", "to")
        with pytest.raises(DecodeError):
            _ = [envelope async for envelope in storage.read()]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (OLD, GROWN),
        (OLD, _address(("street", str | None))),
        (OLD | None, GROWN | None),
        (tuple[OLD, ...], tuple[GROWN, ...]),
        (dict[str, OLD], dict[str, GROWN]),
        (tuple[int, ...], tuple[int | None, ...]),
        (dict[str, int], dict[str, float]),
        (dict[int, int], dict[str, int]),
        (dict[int, int], dict[float, int]),
        (dict[UUID, OLD], dict[UUID, GROWN]),
        (dict[Literal[1, 2], int], dict[int, int]),
        (dict[Literal["a"], int], dict[Literal["a", "b"], int]),
        (dict[int, int], dict[int | str, int]),
        (dict[str, Any], dict[str, Any] | None),
    ],
)
def test_a_nested_type_that_accepts_all_old_values_is_no_failure(before: Any, after: Any) -> None:
    """The check would fail over a new optional field, and demand a useless new version and upcaster."""
    assert _findings(before, after) == []


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (OLD, _address(("street", str), ("code", str)), "Address"),
        (OLD, _address(("road", str, "")), "Address"),
        (GROWN, OLD, "Address"),
        (_address(("street", str | None)), OLD, "Address"),
        (tuple[float, ...], tuple[int, ...], "array"),
        (tuple[str, ...], tuple[datetime, ...], "array"),
        (_address(("since", str)), _address(("since", datetime)), "Address"),
        (dict[str, GROWN], dict[str, OLD], "object"),
    ],
)
def test_a_nested_type_that_accepts_fewer_values_is_a_failure(before: Any, after: Any, kind: str) -> None:
    """The application would start, and park every event stored before."""
    (finding,) = _findings(before, after)
    assert (finding.level, finding.field) == ("failure", "to")
    assert finding.problem == f"its type {kind} no longer accepts all stored values"


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (dict[str, int], dict[int, int], "its type changed from object to object (by integer)"),
        (
            dict[int, int],
            dict[UUID, int],
            "its type changed from object (by integer) to object (by string (uuid))",
        ),
        (dict[float, int], dict[int, int], "its type changed from object (by number) to object (by integer)"),
        (
            dict[str, int],
            dict[datetime, int],
            "its type changed from object to object (by string (date-time))",
        ),
        (
            dict[Literal["a", "b"], int],
            dict[Literal["a"], int],
            "its type changed from object (by one of ['a', 'b']) to object (by one of ['a'])",
        ),
        (
            tuple[dict[str, int], ...],
            tuple[dict[int, int], ...],
            "its type array no longer accepts all stored values",
        ),
    ],
)
def test_a_mapping_type_that_rejects_old_keys_is_a_failure(before: Any, after: Any, problem: str) -> None:
    """The check would call stored events readable, and every one of them would be parked."""
    (finding,) = _findings(before, after)
    assert (finding.level, finding.field, finding.problem) == ("failure", "to", problem)


@pytest.mark.parametrize("kind", [dict[int, int], dict[str, int], dict[UUID, OLD], dict[str, Any], dict])
def test_a_snapshot_without_the_key_types_of_a_mapping_is_no_failure(kind: Any) -> None:
    """Every check against a snapshot of an older version would fail, although nothing changed."""
    with registry.isolated():
        snapshot = _export(kind)
        del snapshot["events"]["schema-nested.moved"]["schema"]["properties"]["to"]["propertyNames"]
        assert [each for each in check_schema(snapshot) if each.event_type == "schema-nested.moved"] == []


def test_changing_text_to_a_datetime_is_a_failure() -> None:
    """The stored values may be any text, and the check would call all of it readable."""
    (finding,) = _findings(str, datetime)
    assert finding.problem == "its type changed from string to string (date-time)"
    (finding,) = _findings(str | None, datetime | None)
    assert finding.problem == "its type changed from string | null to string (date-time) | null"


def test_the_exported_schema_marks_datetimes_at_any_depth() -> None:
    """Another program would send text that is not a time, and its event would be rejected."""
    date_time = {"type": "string", "format": "date-time"}
    stay: Any = msgspec.defstruct("Stay", [("since", datetime), ("seen", set[datetime] | None, None)])
    kind: Any = tuple[datetime, int] | dict[str, stay] | None
    with registry.isolated():
        schema = _export(kind)["events"]["schema-nested.moved"]["schema"]
    pair, mapping, _ = schema["properties"]["to"]["anyOf"]
    assert pair["prefixItems"] == [date_time, {"type": "integer"}]
    assert mapping["additionalProperties"] == {"$ref": "#/$defs/Stay"}
    fields = schema["$defs"]["Stay"]["properties"]
    assert fields["since"] == date_time
    assert fields["seen"]["anyOf"][0]["items"] == date_time


# -- times of the day -------------------------------------------------------------------------------------

LOCAL_TIME: Any = Annotated[time, msgspec.Meta(tz=False)]
AWARE_TIME: Any = Annotated[time, msgspec.Meta(tz=True)]
LOCAL: Any = Annotated[datetime, msgspec.Meta(tz=False)]
AWARE: Any = Annotated[datetime, msgspec.Meta(tz=True)]
SHOP: Any = msgspec.defstruct("Shop", [("opens", time), ("closed", tuple[time | None, ...], ())], frozen=True)
SHOP_OF_TEXT: Any = msgspec.defstruct(
    "Shop", [("opens", str), ("closed", tuple[str | None, ...], ())], frozen=True
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (str, time),
        (time, str),
        (str | None, time | None),
        (tuple[str, ...], tuple[time, ...]),
        (dict[str, str], dict[str, time]),
        (SHOP_OF_TEXT, SHOP),
        (str, LOCAL_TIME),
        (str, AWARE_TIME),
        (time, AWARE_TIME),
        (time, datetime),
        (str, LOCAL),
        (str, AWARE),
        (LOCAL, AWARE),
    ],
)
def test_changing_between_text_times_and_datetimes_is_a_failure(before: Any, after: Any) -> None:
    """The application would start, and park every event whose text is not a time."""
    (finding,) = _findings(before, after)
    assert (finding.level, finding.field) == ("failure", "to")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (time, time),
        (time | None, time | None),
        (time, time | None),
        (time, time | int),
        (LOCAL_TIME, time),
        (AWARE_TIME, time),
        (SHOP, SHOP),
    ],
)
def test_a_time_type_that_accepts_all_old_values_is_no_failure(before: Any, after: Any) -> None:
    """The check would fail, although old values are still readable."""
    assert _findings(before, after) == []


def test_the_exported_schema_describes_a_time_of_day_as_it_is_stored() -> None:
    """Another program would send any text, or reject a time without an offset."""
    with registry.isolated():
        schema = _export(SHOP)["events"]["schema-nested.moved"]["schema"]
    opens = schema["$defs"]["Shop"]["properties"]["opens"]
    assert [each["format"] for each in opens["anyOf"]] == ["time", "partial-time"]
    assert {each["type"] for each in opens["anyOf"]} == {"string"}


def _at_least(least: int) -> Any:
    return Annotated[int, msgspec.Meta(ge=least)]


POSITIVE: Any = _at_least(1)


def _up_to(longest: int) -> Any:
    return Annotated[str, msgspec.Meta(max_length=longest)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (_at_least(1), int),
        (_at_least(1), _at_least(0)),
        (_at_least(1), float),
        (_up_to(8), str),
        (_up_to(8), _up_to(9)),
        (Annotated[str, msgspec.Meta(pattern="^a")], str),
        (_at_least(1) | None, int | None),
        (tuple[POSITIVE, ...], tuple[int, ...]),
        (dict[str, POSITIVE], dict[str, int]),
    ],
    ids=str,
)
def test_a_limit_may_be_loosened_but_not_tightened(before: Any, after: Any) -> None:
    """The check would fail although everything is readable, and advise to widen a type that was widened."""
    assert _findings(before, after) == []
    (finding,) = _findings(after, before)
    assert finding.level == "failure"


T = TypeVar("T")


class Boxed(msgspec.Struct, Generic[T], frozen=True):
    content: T


def test_a_field_may_be_a_generic_struct() -> None:
    """Defining its event class would end in "AttributeError: __struct_config__"."""
    assert _findings(Boxed[int], Boxed[int]) == []
    (finding,) = _findings(Boxed[int], Boxed[str])
    assert finding.level == "failure"
    with registry.isolated():
        described = _export(Boxed[datetime])["events"]["schema-nested.moved"]["schema"]["$defs"]
    assert described["Boxed_datetime_"]["properties"]["content"] == {"type": "string", "format": "date-time"}
