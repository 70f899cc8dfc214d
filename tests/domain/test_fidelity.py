"""An event read back equals the stored one in every value, type, scale and offset."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from types import GenericAlias
from typing import Any, NamedTuple, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pabal.domain import DomainEvent, registry
from pabal.domain.definition import EventMeta
from pabal.domain.event import adopt
from pabal.domain.fidelity import is_same
from pabal.errors import InvalidEventError
from tests.domain.support import encode, exact, stored_and_read

# Hypothesis regards a function-scoped fixture as shared by all examples; for forgetting classes that is fine.
relaxed = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Word(StrEnum):
    YES = "yes"
    NO = "no"


class Rights(Flag):
    READ = 1
    WRITE = 2


class Point(msgspec.Struct, frozen=True):
    x: Decimal
    at: datetime | None = None


class Limit(msgspec.Struct, frozen=True, tag="limit"):
    price: Decimal


class Market(msgspec.Struct, frozen=True, tag="market"):
    urgent: bool = False


@dataclass(frozen=True)
class Leg:
    symbol: str
    ratio: tuple[int, int]
    point: Point


class Pair(NamedTuple):
    left: str
    right: Decimal


class Labels(TypedDict):
    name: str
    sizes: list[int]


OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
ZONES = st.sampled_from(("Asia/Seoul", "America/New_York", "Europe/Berlin")).map(ZoneInfo)
DATETIMES = (
    st.datetimes()
    | st.datetimes(
        timezones=st.just(UTC) | OFFSETS, min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)
    )
    | st.datetimes(timezones=ZONES, min_value=datetime(1990, 1, 1), max_value=datetime(2037, 1, 1))
)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)
POINTS = st.builds(Point, DECIMALS, st.none() | DATETIMES)

KEYS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    Decimal: DECIMALS,
    UUID: st.uuids(),
    date: st.dates(),
    datetime: DATETIMES,
    time: st.times() | st.times(timezones=OFFSETS),
    timedelta: st.timedeltas(),
    bytes: st.binary(),
    Colour: st.sampled_from(Colour),
    Level: st.sampled_from(Level),
    Word: st.sampled_from(Word),
}
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    **KEYS,
    bool: st.booleans(),
    Rights: st.integers(0, 3).map(Rights),
    Point: POINTS,
    Leg: st.builds(Leg, st.text(), st.tuples(st.integers(), st.integers()), POINTS),
    Limit | Market: st.builds(Limit, DECIMALS) | st.builds(Market, st.booleans()),
    Pair: st.builds(Pair, st.text(), DECIMALS),
    Labels: st.fixed_dictionaries({"name": st.text(), "sizes": st.lists(st.integers())}),
    Decimal | int: DECIMALS | st.integers(),
    float | int | str: st.floats(allow_nan=False, allow_infinity=False) | st.text(),
}
HASHABLE = (*KEYS, Point, Leg)

Typed = tuple[Any, st.SearchStrategy[Any]]


def _leaf(kind: Any) -> Typed:
    return kind, LEAVES[kind]


def _containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def mapping(drawn: tuple[Any, Typed]) -> Typed:
        key, (kind, values) = drawn
        return GenericAlias(dict, (key, kind)), st.dictionaries(KEYS[key], values, max_size=4)

    def pair(drawn: tuple[Typed, Typed]) -> Typed:
        (left, lefts), (right, rights) = drawn
        return GenericAlias(tuple, (left, right)), st.tuples(lefts, rights)

    def sequences(drawn: Typed) -> st.SearchStrategy[Typed]:
        kind, values = drawn
        lists = st.lists(values, max_size=4)
        return st.sampled_from(
            [
                (GenericAlias(list, kind), lists),
                (GenericAlias(tuple, (kind, ...)), lists.map(tuple)),
                (kind | None, st.none() | values),
            ]
        )

    return st.one_of(
        inner.flatmap(sequences),
        st.tuples(inner, inner).map(pair),
        st.tuples(st.sampled_from(tuple(KEYS)), inner).map(mapping),
    )


def _sets(kind: Any) -> st.SearchStrategy[Typed]:
    values = LEAVES[kind]
    return st.sampled_from(
        [
            (GenericAlias(set, kind), st.sets(values, max_size=4)),
            (GenericAlias(frozenset, kind), st.frozensets(values, max_size=4)),
        ]
    )


TYPED: st.SearchStrategy[Typed] = st.recursive(
    st.sampled_from(tuple(LEAVES)).map(_leaf) | st.sampled_from(HASHABLE).flatmap(_sets),
    _containers,
    max_leaves=4,
)


def define(annotations: dict[str, Any]) -> Any:
    namespace = {"__annotations__": annotations, "__module__": __name__, "__qualname__": "Drawn"}
    return EventMeta("Drawn", (DomainEvent,), namespace)


@relaxed
@given(st.data())
def test_an_event_with_fields_of_any_supported_type_round_trips_exactly(data: st.DataObject) -> None:
    """After a restart a handler would see different values: another scale, offset or type."""
    typed = data.draw(st.lists(TYPED, min_size=1, max_size=4))
    cls = define({f"f{index}": kind for index, (kind, _) in enumerate(typed)})
    for _ in range(2):  # the second time, the types verified by the first may skip the check
        event = cls(*(data.draw(strategy) for _, strategy in typed))
        again = stored_and_read(event)
        assert type(again) is cls
        assert exact(again) == exact(event)


@relaxed
@given(st.data())
def test_a_value_of_any_other_type_raises_or_round_trips_unchanged(data: st.DataObject) -> None:
    """A value not covered by the field's declaration would silently be stored as a similar one."""
    declared, _ = data.draw(TYPED)
    _, strategy = data.draw(TYPED)
    cls = define({"value": declared})
    for _ in range(2):
        event = cls(data.draw(strategy))
        try:
            encode(event)
        except InvalidEventError:
            continue
        again = stored_and_read(event)
        assert _equal_but_for_bases(event.value, again.value)


def _equal_but_for_bases(before: Any, after: Any) -> bool:
    """Compare like ``exact``, but accept an int as a float, and an object of a subclass as its base."""
    if isinstance(before, (list, tuple)):
        pairs = zip(before, after, strict=True)
    elif isinstance(before, dict):
        pairs = zip((*before, *before.values()), (*after, *after.values()), strict=True)
    elif isinstance(before, (int, str)) and exact(before) != exact(after):
        return before == after and (isinstance(before, type(after)) or isinstance(after, float))
    elif isinstance(before, (set, frozenset)):
        return type(before) is type(after) and (before == after or exact(before) == exact(after))
    else:
        return bool(exact(before) == exact(after))
    return isinstance(before, type(after)) and all(_equal_but_for_bases(*pair) for pair in pairs)


# -- differences that ``==`` alone would miss --------------------------------------------------------------


def assert_round_trips(annotation: Any, *values: Any) -> None:
    cls = define({"value": annotation})
    for value in values:
        assert exact(stored_and_read(cls(value)).value) == exact(value)


def assert_rejected(annotation: Any, good: Any, *values: Any) -> None:
    """Check that values are rejected, even after a good one of the same type was accepted."""
    cls = define({"value": annotation})
    for value in values:
        with pytest.raises(InvalidEventError):
            encode(cls(value))
    encode(cls(good))
    for value in values:
        with pytest.raises(InvalidEventError):
            encode(cls(value))


def test_the_scale_and_sign_of_a_decimal_are_kept() -> None:
    """A price of 1.50 would become 1.5, and a tick size of 1E+2 would become 100."""
    assert_round_trips(
        Decimal, *map(Decimal, ("1.50", "-0.00", "1E+2", "0E-30", "123456789012345678901234567890.12"))
    )


def test_utc_offsets_are_kept_and_offsets_with_seconds_raise() -> None:
    """RFC 3339 offsets are whole minutes, so the time would shift by up to a minute."""
    good = datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    assert_round_trips(datetime, good, datetime(2020, 1, 1), datetime.max, datetime(1, 1, 1, tzinfo=UTC))
    with_seconds = datetime(2020, 1, 1, tzinfo=timezone(timedelta(seconds=3661)))
    assert_rejected(datetime, good, with_seconds, datetime(1900, 1, 1, tzinfo=ZoneInfo("Asia/Seoul")))
    assert_rejected(list[datetime], [good], [with_seconds])
    assert_rejected(time, time(1, tzinfo=UTC), time(1, tzinfo=timezone(timedelta(seconds=3661))))
    assert_rejected(time, time(1), time(1, tzinfo=ZoneInfo("Asia/Seoul")))


def test_an_ambiguous_local_time_round_trips() -> None:
    """For one hour every year, every event with a local time would be rejected."""
    twice = datetime(2024, 11, 3, 1, 30, fold=1, tzinfo=ZoneInfo("America/New_York"))
    assert twice != twice.replace(tzinfo=timezone(twice.utcoffset() or timedelta()))
    assert_round_trips(datetime, twice, twice.replace(fold=0))
    assert_round_trips(list[datetime], [twice])
    assert_round_trips(set[datetime], {twice, datetime(2020, 1, 1, tzinfo=UTC)})


def test_a_number_of_another_type_raises_at_any_depth() -> None:
    """A live handler would get the float, and after a restart the Decimal."""
    assert_rejected(Decimal, Decimal(1), 5, 0.5)
    assert_rejected(list[Decimal], [Decimal(1)], [5], [0.5])
    assert_rejected(frozenset[Decimal], frozenset({Decimal(1)}), frozenset({0.5}))
    assert_rejected(dict[str, tuple[Decimal, ...]], {"a": (Decimal(1),)}, {"a": (0.5,)})
    assert_rejected(dict[Decimal, int], {Decimal(1): 1}, {1: 1})
    assert_rejected(int, 1, True, 1.0)


def test_text_in_place_of_an_enum_member_raises_at_any_depth() -> None:
    """``"yes" == Word.YES`` holds, so ``event.word is Word.YES`` would differ before and after a restart."""
    assert_rejected(Word, Word.YES, "yes")
    assert_rejected(list[Word], [Word.YES], ["yes"])
    assert_rejected(dict[Word, int], {Word.YES: 1}, {"yes": 1})


def test_a_float_field_accepts_an_int_that_converts_exactly() -> None:
    """``price=100`` for a float field would be rejected, or ``2**60 + 1`` rounded."""
    cls = define({"value": float})
    assert stored_and_read(cls(100)).value == 100.0
    assert stored_and_read(cls(100)) == cls(100.0)
    assert_rejected(float, 5, 2**60 + 1, 10**400)


def test_integers_of_any_size_are_exact() -> None:
    """Amounts in the smallest unit of some currencies exceed 64 bits."""
    assert_round_trips(int, 2**63, 2**64, -(2**63) - 1, 10**40)


def test_a_subclass_value_is_read_as_its_base_and_raises_if_fields_would_be_lost() -> None:
    """An IntEnum in an int field is the same number; a derived struct would lose its own fields."""

    class Base(msgspec.Struct, frozen=True):
        x: int

    class Derived(Base, frozen=True):
        y: int

    assert stored_and_read(define({"value": int})(Level.HIGH)).value == 2
    assert stored_and_read(define({"value": tuple[str, Decimal]})(Pair("a", Decimal(1)))).value == ("a", 1)
    assert_rejected(Base, Base(1), Derived(1, 2))
    assert_rejected(list[Base], [Base(1)], [Derived(1, 2)])


def test_a_container_of_another_type_raises() -> None:
    """A tuple that comes back as a list would be mutable and unhashable."""
    assert_rejected(Any, [1], (1,), {1}, b"x", Decimal(1), {1: 2}, Point(Decimal(1)), datetime(2020, 1, 1))
    assert_rejected(list[int], [1], (1,))
    assert_rejected(dict[str, int], {"a": 1}, {1: 1})
    assert_rejected(bytes, b"x", bytearray(b"x"), memoryview(b"x"))
    assert_rejected(tuple[int, int], (1, 2), (1,), (1, 2, 3), [1, 2])
    assert_round_trips(Any, None, True, 1, 1.5, "x", [1, [2]], {"a": {"b": None}})


def test_combinations_of_flags_round_trip() -> None:
    """A codec that knows only single flags would be trusted with combinations."""
    assert_round_trips(Rights, Rights.READ, Rights.READ | Rights.WRITE, Rights(0))


def test_is_same_detects_differences_that_equality_misses() -> None:
    """``is_same`` decides what is rejected at publish; it must not fall back on ``==``."""
    noon = datetime(2020, 1, 1, 12, tzinfo=UTC)
    different = [
        (1, True),
        (1.0, 1),
        ("a", Word.YES),
        ([1], (1,)),
        ((1, 2), (1,)),
        ({1: 2}, {1: 2, 3: 4}),
        ({1, 2}, {1, 3}),
        ({0.5}, {Decimal("0.5")}),
        ({noon}, {noon.replace(hour=13)}),
        (noon, noon.astimezone(timezone(timedelta(hours=9)))),
        (noon, noon.replace(tzinfo=None)),
        (Point(Decimal(1)), Point(Decimal(2))),
        (Leg("a", (1, 2), Point(Decimal(1))), Leg("a", (1, 2), Point(Decimal(2)))),
        (Limit(Decimal(1)), Market()),
    ]
    assert [pair for pair in different if is_same(*pair)] == []
    assert all(is_same(before, before) for before, _ in different)


def test_an_adopted_dataclass_gets_the_same_checks_as_an_event() -> None:
    """A registered dataclass would be stored with less care than a DomainEvent."""
    from pabal.domain import register_event

    register_event(Leg, event_type="fidelity-test.leg")
    leg = Leg("BTC", (1, 2), Point(Decimal("1.50"), datetime(2020, 1, 1, tzinfo=UTC)))
    assert exact(stored_and_read(leg)) == exact(leg)
    with pytest.raises(InvalidEventError):
        encode(adopt(Leg("BTC", [1, 2], leg.point)))  # type: ignore[arg-type]


def test_only_types_that_guarantee_a_round_trip_skip_the_check() -> None:
    """Every event would be read back at publish, at twice the cost; or an event that has to be would not."""
    cls = define({"a": int, "b": Decimal, "c": Colour, "d": str | None})
    schema = registry.schema_of(cls)
    encode(cls(1, Decimal(1), Colour.RED, None))
    assert list(schema._verified) == [(int, Decimal, Colour, type(None))]
    for unsettled in (
        define({"a": list[int]})([1]),
        define({"a": float})(1),
        define({"a": Rights})(Rights.READ),
    ):
        encode(unsettled)
        assert not registry.schema_of(type(unsettled))._verified
