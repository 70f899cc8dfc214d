"""What an event class may define, what it gets by default, and what raises at its definition."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec
import pytest

from pabal.domain import DomainEvent, registry
from pabal.domain.definition import EventMeta
from pabal.errors import (
    EventDefinitionError,
    NaiveDatetimeError,
    UnserializableEventError,
    UnsupportedFieldError,
)
from tests.domain.support import encode, stored_and_read

T = TypeVar("T")


def define(annotation: Any) -> Any:
    """Define an event class with one field ``value`` of the given type."""
    namespace = {"__annotations__": {"value": annotation}, "__module__": __name__, "__qualname__": "Defined"}
    return EventMeta("Defined", (DomainEvent,), namespace)


# -- what a class gets by default --------------------------------------------------------------------------


def test_the_type_name_defaults_to_the_class_name_and_is_not_inherited() -> None:
    """A subclass would claim its parent's name, and stored events would come back as the wrong class."""

    class Base(DomainEvent):
        event_type: ClassVar[str] = "base.happened"

    class Derived(Base):
        pass

    assert (Base.event_type, Derived.event_type) == ("base.happened", "Derived")
    assert registry.class_named("Derived") is Derived


def test_aggregate_type_id_and_version_are_inherited() -> None:
    """Related events of one aggregate would have to repeat them in every class."""

    class OrderEvent(DomainEvent):
        aggregate_type: ClassVar[str] = "order"
        schema_version: ClassVar[int] = 2
        order_id: str

        @property
        def aggregate_id(self) -> str:
            return self.order_id

    class Shipped(OrderEvent):
        carrier: str

    record = encode(Shipped("o-1", "post"))
    assert (record.aggregate_type, record.aggregate_id, record.schema_version) == ("order", "o-1", 2)
    assert stored_and_read(Shipped("o-1", "post")) == Shipped("o-1", "post")


def test_an_event_without_an_aggregate_has_no_aggregate_type_or_id() -> None:
    """Every event would have to belong to a stream."""

    class Ticked(DomainEvent):
        pass

    record = encode(Ticked())
    assert (record.aggregate_type, record.aggregate_id) == (None, None)


def test_events_with_no_field_and_with_one_field_round_trip() -> None:
    """The getter for a single attribute does not return a tuple, and there is none for no attributes."""

    class Nothing(DomainEvent):
        pass

    class One(DomainEvent):
        items: tuple[int, ...]

    assert stored_and_read(Nothing()) == Nothing()
    assert hash(Nothing()) == hash(Nothing())
    assert stored_and_read(One((1, 2))) == One((1, 2))
    assert One((1,)) != One((2,))


def test_aggregate_id_may_be_a_plain_field() -> None:
    """The most natural way to write it would be hidden by the property of the base class."""

    class Opened(DomainEvent):
        aggregate_type: ClassVar[str] = "account"
        aggregate_id: str
        limit: int = 0

    event = Opened("a-1", 5)
    assert encode(event).aggregate_id == "a-1"
    assert stored_and_read(event).aggregate_id == "a-1"


def test_aggregate_id_may_be_a_constant_of_the_class() -> None:
    """A singleton aggregate would need a property that returns a constant."""

    class Reset(DomainEvent):
        aggregate_id: ClassVar[str] = "the-clock"

    assert encode(Reset()).aggregate_id == "the-clock"


def test_a_keyword_only_class_round_trips() -> None:
    """Rebuilding the event from the log would pass its fields by position."""

    class Configured(DomainEvent, kw_only=True):
        depth: int = 3
        name: str

    with pytest.raises(TypeError):
        Configured("x")  # type: ignore[call-arg]
    assert stored_and_read(Configured(name="x")) == Configured(name="x", depth=3)


def test_a_field_of_a_generic_base_takes_the_type_argument() -> None:
    """A field of a generic base would accept any value, because ``T`` says nothing."""

    class Measured(DomainEvent, Generic[T]):
        value: T

    class Weighed(Measured[Decimal]):
        pass

    again = stored_and_read(Weighed(Decimal("1.50")))
    assert repr(again.value) == "Decimal('1.50')"
    with pytest.raises(UnserializableEventError):
        encode(Weighed("heavy"))  # type: ignore[arg-type]


def test_an_event_can_inherit_methods_from_a_plain_mixin() -> None:
    """On its own, msgspec rejects a base with an instance dictionary if garbage collection is off."""

    class Labelled:
        def label(self) -> str:
            return f"<{self.name}>"  # type: ignore[attr-defined]

    class Named(Labelled, DomainEvent):
        name: str

    class Renamed(Named):
        before: str

    assert Named("x").label() == "<x>"
    assert stored_and_read(Renamed("x", "y")) == Renamed("x", "y")


# -- __post_init__ -----------------------------------------------------------------------------------------


def test_a_custom_post_init_does_not_disable_the_checks_of_common_fields() -> None:
    """A class's own ``__post_init__`` would replace the one that makes metadata read-only."""

    class Priced(DomainEvent):
        price: int

        def __post_init__(self) -> None:
            if self.price < 0:
                raise ValueError("negative price")

    event = Priced(1, metadata={"a": 1})
    with pytest.raises(TypeError):
        event.metadata["a"] = 2  # type: ignore[index]
    with pytest.raises(NaiveDatetimeError):
        Priced(1, occurred_at=datetime(2020, 1, 1))
    with pytest.raises(ValueError, match="negative"):
        Priced(-1)


def test_a_custom_post_init_sees_occurred_at_in_utc() -> None:
    """A class that checks ``occurred_at`` would see the caller's time zone."""
    seen: list[Any] = []

    class Observed(DomainEvent):
        def __post_init__(self) -> None:
            seen.append(self.occurred_at.utcoffset())

    Observed(occurred_at=datetime.fromisoformat("2020-01-01T09:00:00+09:00"))
    assert [offset.total_seconds() for offset in seen] == [0.0]


def test_post_init_follows_the_usual_rules_of_inheritance() -> None:
    """A subclass's check would run its parent's check twice, or never."""
    ran: list[str] = []

    class Parent(DomainEvent):
        def __post_init__(self) -> None:
            ran.append("parent")

    class Silent(Parent):
        pass

    class Calling(Parent):
        def __post_init__(self) -> None:
            super().__post_init__()
            ran.append("calling")

    class Replacing(Parent):
        def __post_init__(self) -> None:
            ran.append("replacing")

    for cls in (Parent, Silent, Calling, Replacing):
        cls(metadata={"a": 1})
    assert ran == ["parent", "parent", "parent", "calling", "replacing"]


def test_a_mixins_post_init_does_not_disable_the_checks_of_common_fields() -> None:
    """A mixin before the event base would let naive times through."""

    class Checked:
        __slots__ = ()

        def __post_init__(self) -> None:
            assert self.depth >= 0  # type: ignore[attr-defined]

    class Dived(Checked, DomainEvent):
        depth: int

    with pytest.raises(NaiveDatetimeError):
        Dived(1, occurred_at=datetime(2020, 1, 1))
    with pytest.raises(AssertionError):
        Dived(-1)


# -- what is rejected --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["event_type", "aggregate_type", "schema_version", "to_dict"])
def test_a_class_attribute_cannot_be_declared_as_a_field(name: str) -> None:
    """``event_type: str = "order.placed"`` without ClassVar would become a field of every event."""
    with pytest.raises(EventDefinitionError, match="ClassVar"):
        EventMeta("Wrong", (DomainEvent,), {"__annotations__": {name: str}, "__qualname__": "Wrong"})


@pytest.mark.parametrize("name", ["event_id", "occurred_at", "correlation_id", "causation_id", "metadata"])
def test_common_fields_cannot_be_redefined(name: str) -> None:
    """A payload field of that name would be taken for the header field and vanish from the log."""
    for body in ({"__annotations__": {name: str}}, {name: property(lambda self: "x")}):
        with pytest.raises(EventDefinitionError, match=name):
            EventMeta("Wrong", (DomainEvent,), {**body, "__qualname__": "Wrong"})


def test_an_event_class_cannot_be_mutable() -> None:
    """One handler of an event could change what the other handlers see."""
    with pytest.raises(EventDefinitionError, match="frozen"):

        class Wrong(DomainEvent, frozen=False):  # type: ignore[misc]
            x: int


def test_a_required_field_after_an_optional_one_raises_and_suggests_kw_only() -> None:
    """The author would get msgspec's TypeError instead of an error that names the class."""
    with pytest.raises(EventDefinitionError, match=r"Wrong cannot be defined.*kw_only"):

        class Wrong(DomainEvent):
            a: int = 0
            b: int  # type: ignore[misc]


@pytest.mark.parametrize("decorate", [dataclass, dataclass(frozen=True)])
def test_an_event_class_cannot_be_a_dataclass_as_well(decorate: Any) -> None:
    """The author would get "readonly attribute" from inside ``dataclasses``."""
    with pytest.raises(EventDefinitionError, match="leave @dataclass out"), registry.isolated():
        decorate(define(int))


def test_a_default_made_by_dataclasses_field_raises() -> None:
    """Every event would hold that Field object, and each publish fail, or without storage reach handlers."""
    with pytest.raises(EventDefinitionError, match=r"Wrong\.lines uses dataclasses\.field.*msgspec\.field"):

        class Wrong(DomainEvent):
            lines: list[str] = field(default_factory=list)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("event_type", ""),
        ("event_type", "  "),
        ("event_type", None),
        ("event_type", 5),
        ("aggregate_type", 5),
        ("aggregate_id", lambda event: "o-1"),  # a method, without @property
        ("schema_version", 0),
        ("schema_version", "1"),
        ("schema_version", True),
    ],
)
def test_invalid_class_attributes_raise_and_register_nothing(attribute: str, value: Any) -> None:
    """The first event of the class would fail at publish, or worse, be stored."""
    with pytest.raises(EventDefinitionError, match=attribute):
        EventMeta("Wrong", (DomainEvent,), {attribute: value})
    assert registry.class_named("Wrong") is None


@pytest.mark.parametrize(
    "annotation",
    [
        object,
        Callable[[int], int],
        complex,
        type,
        Path,
        deque[int],
        Exception,
        msgspec.Raw,
        list[object],
        dict[str, tuple[int, Path]],
        int | str | Path,
        datetime | str,
        list[int] | tuple[int, ...],
        dict[tuple[int, int], int],
        dict[bool, int],
        dict[None, int],
        list[dict[int | None, str]],
        int | msgspec.UnsetType,
    ],
    ids=str,
)
def test_a_field_type_that_cannot_be_stored_raises_an_error_that_names_the_field(annotation: Any) -> None:
    """The first publish in production would fail, instead of the import in development."""
    with pytest.raises(UnsupportedFieldError) as caught:
        define(annotation)
    assert (caught.value.event_class, caught.value.field) == ("Defined", "value")
    assert "Defined.value cannot be stored" in str(caught.value)
    assert registry.class_named("Defined") is None


def test_the_error_names_the_unsupported_field_among_several() -> None:
    """The author of a class with twenty fields would have to guess."""
    with pytest.raises(UnsupportedFieldError) as caught:

        class Wrong(DomainEvent):
            good: int
            bad: datetime | str
            fine: str

    assert caught.value.field == "bad"


def test_an_unsupported_field_of_a_nested_struct_raises() -> None:
    """A type rejected at the top level would be accepted one level deeper."""

    class Inner(msgspec.Struct, frozen=True):
        path: Path

    with pytest.raises(UnsupportedFieldError):
        define(list[Inner])


def test_a_type_that_refers_to_itself_is_accepted() -> None:
    """Walking over the types below a field would never end."""
    event = define(Tree)(Tree((Tree(()), Tree(()))))
    assert stored_and_read(event) == event


class Tree(msgspec.Struct, frozen=True):
    children: tuple["Tree", ...]


# -- what a handler could change ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "mutable"),
    [
        (tuple[int, ...], False),
        (frozenset[str], False),
        (Tree, False),
        (Annotated[int, msgspec.Meta(gt=0)], False),
        (list[int], True),
        (tuple[list[int], ...], True),
        (dict[str, int], True),
        (set[int], True),
        (bytearray, True),
        (Any, True),
    ],
    ids=str,
)
def test_a_schema_is_mutable_if_a_field_can_hold_a_mutable_value(annotation: Any, mutable: bool) -> None:
    """Promise 20: a mutable event is copied for each handler, so that none can change what another sees."""
    assert registry.schema_of(define(annotation)).mutable is mutable


def test_structs_and_dataclasses_count_as_mutable_unless_frozen() -> None:
    """Promise 20, one level deeper."""

    class Soft(msgspec.Struct):
        x: int

    class Hard(msgspec.Struct, frozen=True):
        x: int

    @dataclass
    class SoftData:
        x: int

    @dataclass(frozen=True)
    class HardData:
        x: int

    kinds = (Soft, Hard, SoftData, HardData)
    assert [registry.schema_of(define(kind)).mutable for kind in kinds] == [True, False, True, False]
