"""Frozen dataclasses become events once they are registered."""

from dataclasses import InitVar, dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest

from pabal.domain import register_event
from pabal.errors import EventDefinitionError, UnsupportedFieldError
from tests.domain.support import encode, stored_and_read


def test_a_registered_frozen_dataclass_round_trips() -> None:
    """A domain layer that does not know pabal could not use the bus."""

    @dataclass(frozen=True)
    class PriceSeen:
        symbol: str
        price: Decimal = Decimal(0)

    assert register_event(PriceSeen, event_type="price.seen", aggregate_id="symbol") is PriceSeen
    record = encode(PriceSeen("BTC", Decimal("1.50")))
    assert (record.event_type, record.aggregate_id) == ("price.seen", "BTC")
    assert stored_and_read(PriceSeen("BTC", Decimal("1.50"))) == PriceSeen("BTC", Decimal("1.50"))


def test_the_aggregate_id_of_a_dataclass_can_be_computed_by_a_function() -> None:
    """An id made of two fields could not be used."""

    @dataclass(frozen=True)
    class Moved:
        board: str
        piece: int

    register_event(
        Moved, aggregate_id=lambda e: f"{e.board}/{e.piece}", aggregate_type="piece", schema_version=2
    )
    record = encode(Moved("b", 1))
    assert (record.event_type, record.aggregate_type, record.aggregate_id) == ("Moved", "piece", "b/1")
    assert record.schema_version == 2


def test_the_aggregate_id_of_a_dataclass_can_be_a_property() -> None:
    """Only fields would be accepted, although the class already computes the id."""

    @dataclass(frozen=True)
    class Moved:
        board: str

        @property
        def key(self) -> str:
            return f"board-{self.board}"

    register_event(Moved, aggregate_id="key")
    assert encode(Moved("7")).aggregate_id == "board-7"


def test_computed_fields_of_a_dataclass_round_trip() -> None:
    """A field set by ``__post_init__`` would be missing when the event is read back."""

    @dataclass(frozen=True)
    class Squared:
        side: int
        area: int = field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "area", self.side**2)

    register_event(Squared)
    assert stored_and_read(Squared(3)) == Squared(3)


def test_registering_anything_but_a_frozen_dataclass_raises() -> None:
    """Handlers would share a mutable object."""

    @dataclass
    class Mutable:
        x: int

    class Plain:
        pass

    for cls in (Mutable, Plain, dict):
        with pytest.raises(EventDefinitionError, match="frozen dataclasses"):
            register_event(cls)


def test_an_aggregate_id_that_names_no_field_raises() -> None:
    """A misspelt name would fail at the first publish."""

    @dataclass(frozen=True)
    class PriceSeen:
        symbol: str

    with pytest.raises(EventDefinitionError, match="symbl"):
        register_event(PriceSeen, aggregate_id="symbl")


def test_a_dataclass_field_that_cannot_be_stored_raises() -> None:
    """Registered classes would be checked less than subclasses of DomainEvent."""

    @dataclass(frozen=True)
    class Opened:
        path: Path

    @dataclass(frozen=True)
    class Seeded:
        seed: InitVar[int]

    with pytest.raises(UnsupportedFieldError) as caught:
        register_event(Opened)
    assert caught.value.field == "path"
    with pytest.raises(UnsupportedFieldError, match="InitVar"):
        register_event(Seeded)


def test_a_dataclass_can_refer_to_a_class_defined_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two dataclasses in one module that refer to each other could not be registered."""

    @dataclass(frozen=True)
    class Early:
        content: "LateContent"  # type: ignore[name-defined]  # noqa: F821

    register_event(Early)
    monkeypatch.setitem(globals(), "LateContent", int)
    assert stored_and_read(Early(5)) == Early(5)
