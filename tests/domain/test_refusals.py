"""Values that cannot be stored are rejected at publish, with a specific error, before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pabal.domain import DomainEvent, new_event_id, register_event
from pabal.domain.definition import EventMeta
from pabal.domain.envelope import id_to_bytes, id_to_text
from pabal.domain.registry import registry
from pabal.errors import (
    InvalidEventError,
    NaiveDatetimeError,
    NonFiniteNumberError,
    PayloadTooLargeError,
    UnregisteredEventError,
    UnserializableEventError,
)
from tests.domain.support import encode, label

NAN, INFINITY = float("nan"), float("inf")
SOME_ID = UUID("0190a0a0-0000-7000-8000-000000000001")
Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class Inner(msgspec.Struct, frozen=True):
    value: float


@dataclass(frozen=True)
class InnerData:
    value: float
    kind: ClassVar[str] = "data"


class Marked(DomainEvent):
    event_type: ClassVar[str] = "refusal-test.marked"
    aggregate_type: ClassVar[str] = "mark"
    key: Any = "a"
    text: str = ""

    @property
    def aggregate_id(self) -> Any:
        return self.key


def define(annotation: Any) -> Any:
    namespace = {"__annotations__": {"value": annotation}, "__module__": __name__, "__qualname__": "Refused"}
    return EventMeta("Refused", (DomainEvent,), namespace)


@pytest.mark.parametrize("bad", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize(
    ("annotation", "wrap"),
    [
        (float, lambda x: x),
        (float | None, lambda x: x),
        (Any, lambda x: x),
        (list[float], lambda x: [1.0, x]),
        (tuple[float, ...], lambda x: (x,)),
        (set[float], lambda x: {x}),
        (frozenset[float], lambda x: frozenset({x})),
        (dict[str, float], lambda x: {"a": x}),
        (dict[float, str], lambda x: {x: "a"}),
        (Inner, Inner),
        (InnerData, InnerData),
        (dict[str, list[Inner | None]], lambda x: {"a": [None, Inner(x)]}),
        (Any, lambda x: {"a": [{"b": x}]}),
    ],
    ids=label,
)
def test_a_non_finite_float_raises_at_any_depth(annotation: Any, wrap: Any, bad: float) -> None:
    """JSON has no NaN: it would be stored as null, and the payload could never be read again."""
    cls = define(annotation)
    for _ in range(2):  # also after a good value has verified the types
        with pytest.raises(NonFiniteNumberError) as caught:
            encode(cls(wrap(bad)))
        assert caught.value.field == "value"
        assert caught.value.event_type == "Refused"
        encode(cls(wrap(1.5)))


@pytest.mark.parametrize("bad", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_a_non_finite_decimal_raises(bad: str) -> None:
    """A price of NaN would compare unequal to itself, in every handler and after every restart."""
    for cls, wrap in ((define(Decimal), Decimal), (define(list[Decimal]), lambda x: [Decimal(x)])):
        for _ in range(2):
            with pytest.raises(NonFiniteNumberError):
                encode(cls(wrap(bad)))
            encode(cls(wrap("1.5")))


@pytest.mark.parametrize(
    ("annotation", "wrong"),
    [
        (str, 5),
        (str, None),
        (int, "5"),
        (int, 5.5),
        (int, True),
        (UUID, "0190a0a0-0000-7000-8000-000000000000"),
        (Decimal, "1.5"),
        (datetime, "2020-01-01T00:00:00Z"),
        (list[int], "abc"),
        (list[int], [1, "2"]),
        (tuple[int, str], (1, 2)),
        (Inner, {"value": 1.5}),
        (str, object()),
        (Any, object()),
        (Annotated[int, msgspec.Meta(gt=0)], 0),
        (Annotated[str, msgspec.Meta(max_length=2)], "abc"),
    ],
    ids=label,
)
def test_a_value_of_the_wrong_type_raises_an_unserializable_event_error(annotation: Any, wrong: Any) -> None:
    """The value would be stored, and could never be read back as its class."""
    with pytest.raises(UnserializableEventError) as caught:
        encode(define(annotation)(wrong))
    assert (caught.value.event_type, UUID(caught.value.event_id).version) == ("Refused", 7)
    assert "nothing was stored" in str(caught.value)


def test_a_constraint_is_checked_for_every_event() -> None:
    """A quantity of 0 would pass once a quantity of 1 was seen."""
    for annotation, good, bad in (
        (Annotated[int, msgspec.Meta(gt=0)], 1, 0),
        (Literal["buy", "sell"], "buy", "hold"),
        (Literal[1, 2] | None, 1, 3),
    ):
        cls = define(annotation)
        encode(cls(good))
        with pytest.raises(UnserializableEventError):
            encode(cls(bad))


@pytest.mark.parametrize(
    ("annotation", "wrap", "path"),
    [
        (Aware, lambda x: x, "value"),
        (Aware | None, lambda x: x, "value"),
        (list[Aware], lambda x: [x.replace(tzinfo=UTC), x], "value[1]"),
        (dict[str, Aware], lambda x: {"a": x}, "value[...]"),
        (Annotated[time, msgspec.Meta(tz=True)], lambda x: x.time(), "value"),
    ],
    ids=label,
)
def test_a_naive_datetime_in_an_aware_field_raises(annotation: Any, wrap: Any, path: str) -> None:
    """A time without an offset would be read as local time on another machine."""
    cls = define(annotation)
    for _ in range(2):
        with pytest.raises(NaiveDatetimeError) as caught:
            encode(cls(wrap(datetime(2020, 1, 1))))
        assert caught.value.field == path


def test_a_payload_above_the_limit_raises_and_one_at_the_limit_does_not() -> None:
    """One huge event would stall every publisher behind it, and every reader."""
    event = Marked(text="x" * 1000)
    size = len(encode(event).payload)
    assert encode(event, limit=size).payload
    with pytest.raises(PayloadTooLargeError) as caught:
        encode(event, limit=size - 1)
    assert (caught.value.size, caught.value.limit) == (size, size - 1)
    assert caught.value.event_id == event.event_id


@pytest.mark.parametrize(
    "wrong",
    ["", "order-1", "0190a0a0", "zz" * 16, str(SOME_ID) + "0", None, 5, SOME_ID, b"0" * 16],
    ids=label,
)
def test_an_event_id_that_is_not_a_uuid_raises(wrong: Any) -> None:
    """Ids are stored as 16 bytes: other text would be cut, or fail in the middle of a commit."""
    with pytest.raises(InvalidEventError, match="is not a UUID"):
        encode(Marked(event_id=wrong))


def test_an_event_id_in_a_non_canonical_form_raises() -> None:
    """The id would come back in another spelling, and no longer match events that name it as their cause."""
    text = str(UUID(int=0xABCDEF << 64))
    spellings = (text.upper(), text.replace("-", ""), "{" + text + "}", text.replace("-", " - "))
    odd = text.replace("-", "")[:4] + "-" + text.replace("-", "")[4:] + "---"
    assert encode(Marked(event_id=text)).event_id == UUID(text).bytes
    for spelling in (*spellings, odd):
        with pytest.raises(InvalidEventError):
            encode(Marked(event_id=spelling))


@given(st.uuids())
def test_ids_round_trip_through_bytes(identity: UUID) -> None:
    """An event could not be found under its own id."""
    assert id_to_bytes(str(identity), strict=True) == identity.bytes
    assert id_to_text(identity.bytes) == str(identity)
    assert id_to_bytes(str(identity).upper()) == identity.bytes  # a lookup is not strict


@pytest.mark.parametrize("name", ["text", "key", "correlation_id", "causation_id", "metadata"])
def test_text_with_lone_surrogates_raises_in_every_field(name: str) -> None:
    """UTF-8 cannot encode such text: the writer would fail in a commit, along with the other events in it."""
    bad: Any = {"desk": "\ud800"} if name == "metadata" else "\ud800"
    with pytest.raises(UnserializableEventError, match="surrogates"):
        encode(Marked(**{name: bad}))


def test_an_aggregate_id_with_lone_surrogates_raises_despite_a_valid_payload() -> None:
    """Ids are encoded apart from the payload, and need their own check."""

    class Keyed(DomainEvent):
        number: int

        @property
        def aggregate_id(self) -> str:
            return chr(self.number)

    assert encode(Keyed(0x41)).aggregate_id == "A"
    with pytest.raises(UnserializableEventError, match="surrogates"):
        encode(Keyed(0xD800))


@pytest.mark.parametrize("wrong", [5, b"a", ("a", 1), UUID(int=1), 1.5])
def test_an_aggregate_id_that_is_not_a_string_raises(wrong: Any) -> None:
    """SQLite would reject the row, or store 5 and find nothing under "5"."""

    class Keyed(DomainEvent):
        @property
        def aggregate_id(self) -> Any:
            return wrong

    with pytest.raises(UnserializableEventError, match="aggregate_id"):
        encode(Keyed())

    @dataclass(frozen=True)
    class Adopted:
        x: int = 1

    register_event(Adopted, aggregate_id=lambda body: wrong)
    with pytest.raises(UnserializableEventError, match="aggregate_id"):
        encode(Adopted())


@pytest.mark.parametrize("name", ["correlation_id", "causation_id"])
def test_a_correlation_or_causation_id_that_is_not_a_string_raises(name: str) -> None:
    """A UUID object passed by mistake would fail in the middle of a commit."""
    wrong: dict[str, Any] = {name: uuid4()}
    with pytest.raises(UnserializableEventError, match=name):
        encode(Marked(**wrong))


def test_a_str_subclass_or_str_enum_is_stored_as_a_plain_string() -> None:
    """A StrEnum is a valid key, and must be the same key after a restart."""

    class Symbol(str):
        __slots__ = ()

    class Name(StrEnum):
        BTC = "BTC"

    class Quoted(DomainEvent):
        event_type = Name.BTC
        aggregate_type = Symbol("symbol")
        number: int

        @property
        def aggregate_id(self) -> str:
            return (Symbol("BTC"), Name.BTC)[self.number]

    for number in (0, 1):
        record = encode(Quoted(number))
        texts = (record.event_type, record.aggregate_type, record.aggregate_id)
        assert texts == ("BTC", "symbol", "BTC")
        assert {type(text) for text in texts} == {str}


def test_encoding_an_unregistered_object_raises() -> None:
    """A dataclass that was not registered has no name by which it could be read back."""
    with pytest.raises(UnregisteredEventError, match="register_event"):
        encode(InnerData(1.5))


def test_a_value_that_contains_itself_raises() -> None:
    """Encoding the value would crash the process, or never end."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidEventError):
        encode(define(Any)(loop))


def test_a_mapping_that_is_not_a_dict_raises_an_error_that_names_its_type() -> None:
    """The mapping would come back as a dictionary, and no longer be read-only."""
    from types import MappingProxyType

    with pytest.raises(UnserializableEventError, match="mappingproxy"):
        encode(define(Mapping[str, int])(MappingProxyType({"a": 1})))


def test_a_value_nested_too_deeply_raises_an_unserializable_event_error() -> None:
    """Decoding and comparing allow less nesting than encoding: this used to raise a bare RecursionError."""
    cls = define(list[Any])
    refused: list[tuple[int, bool]] = []
    for depth in (700, 1500, 5000):  # the depth that each allows depends on Python
        value: list[Any] = []
        for _ in range(depth):
            value = [value]
        event = cls(value)
        for look in (encode, lambda one: registry.schema_of(cls).check_finite(one, one.event_id)):
            try:
                look(event)
            except UnserializableEventError as error:
                refused.append((depth, "recursion" in str(error)))
    assert refused.count((5000, True)) == 2


def test_ids_sort_in_the_same_order_as_their_bytes() -> None:
    """Inserts into the index on ids would be scattered, at half the rate."""
    made = [new_event_id() for _ in range(1000)]
    assert [id_to_text(raw) for raw in sorted(map(id_to_bytes, made))] == sorted(made) == made
