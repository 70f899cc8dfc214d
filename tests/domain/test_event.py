"""What every event has and does: common fields, equality, immutability, dictionary form."""

import copy
import json
import pickle
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar
from uuid import UUID

import msgspec
import pytest

from pabal.domain import DomainEvent, Receipt, register_event, registry
from pabal.domain.event import NO_METADATA, adopt, body_of, caused_by, kind_of, private_copy
from pabal.errors import InvalidEventError, NaiveDatetimeError, PabalError, UnregisteredEventError
from tests.domain.support import stored_and_read

SEOUL = timezone(timedelta(hours=9))


class Side(Enum):
    BUY = "buy"


class Placed(DomainEvent):
    event_type: ClassVar[str] = "domain-event.placed"
    aggregate_type: ClassVar[str] = "order"
    order_id: str
    symbol: str
    quantity: Decimal
    price: Decimal | None = None

    @property
    def aggregate_id(self) -> str:
        return self.order_id


class Remark(DomainEvent):
    event_type: ClassVar[str] = "domain-event.remark"
    text: str = ""
    tags: list[str] = msgspec.field(default_factory=list)


def test_fields_can_be_given_by_position_or_by_keyword() -> None:
    """The README's first line would not run."""
    positional = Placed("o-1", "KRW-BTC", Decimal("0.5"))
    keyword = Placed(order_id="o-1", symbol="KRW-BTC", quantity=Decimal("0.5"), price=None)
    assert positional == keyword
    assert positional.price is None


def test_common_fields_are_keyword_only() -> None:
    """A sixth positional argument would silently become an event id."""
    with pytest.raises(TypeError):
        Placed("o-1", "KRW-BTC", Decimal(1), Decimal(2), "0190a0a0-0000-7000-8000-000000000000")  # type: ignore[call-arg]


def test_a_new_event_has_only_an_id_and_a_time() -> None:
    """Fields that were not given would be stored as if they had been."""
    before = datetime.now(UTC)
    event = Remark("hello")
    assert UUID(event.event_id).version == 7
    assert before <= event.occurred_at <= datetime.now(UTC)
    assert event.occurred_at.tzinfo is UTC
    assert (event.correlation_id, event.causation_id, dict(event.metadata)) == (None, None, {})


def test_an_event_is_immutable() -> None:
    """A handler could change what the next handler sees."""
    event = Placed("o-1", "KRW-BTC", Decimal(1), metadata={"desk": "A"})
    for name, value in (("order_id", "o-2"), ("event_id", "x"), ("metadata", {})):
        with pytest.raises(AttributeError):
            setattr(event, name, value)
    with pytest.raises(TypeError):
        event.metadata["desk"] = "B"  # type: ignore[index]


def test_equality_and_hash_compare_only_type_and_payload() -> None:
    """A test could not compare events, because their ids and times differ."""
    one = Placed("o-1", "KRW-BTC", Decimal("0.5"), metadata={"desk": "A"}, correlation_id="c")
    same = Placed("o-1", "KRW-BTC", Decimal("0.5"), occurred_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert one == same
    assert not one != same  # noqa: SIM202 - msgspec has a way of its own for each
    assert hash(one) == hash(same)
    assert one != Placed("o-2", "KRW-BTC", Decimal("0.5"))
    assert one != Remark("o-1")
    assert one != "o-1"


def test_events_of_different_classes_with_equal_fields_are_unequal() -> None:
    """``OrderCancelled("o-1")`` would satisfy a test that waits for ``OrderPlaced("o-1")``."""

    class Bought(DomainEvent):
        what: str

    class Sold(DomainEvent):
        what: str

    class BoughtAgain(Bought):
        pass

    assert Bought("x") != Sold("x")
    assert Bought("x") != BoughtAgain("x")


def test_a_naive_occurred_at_raises_a_naive_datetime_error() -> None:
    """A time without an offset would be stored as some other time."""
    with pytest.raises(NaiveDatetimeError) as caught:
        Remark("x", occurred_at=datetime(2020, 1, 1))
    assert (caught.value.event_type, caught.value.field) == ("domain-event.remark", "occurred_at")


@pytest.mark.parametrize("wrong", ["2020-01-01", None, date(2020, 1, 1), 5])
def test_an_occurred_at_that_is_not_a_datetime_raises(wrong: Any) -> None:
    """The mistake would surface as an AttributeError deep inside the storage."""
    with pytest.raises(InvalidEventError, match="occurred_at"):
        Remark("x", occurred_at=wrong)


def test_occurred_at_is_converted_to_utc() -> None:
    """Events from two time zones could not be compared as text or by the stored number."""
    event = Remark("x", occurred_at=datetime(2020, 1, 1, 9, tzinfo=SEOUL))
    assert event.occurred_at == datetime(2020, 1, 1, tzinfo=UTC)
    assert event.occurred_at.tzinfo is UTC


def test_metadata_is_a_read_only_copy() -> None:
    """The caller could change an event's metadata through the dictionary it passed in."""
    mine = {"desk": "A"}
    wrapped = MappingProxyType(mine)
    first, second = Remark("x", metadata=mine), Remark("x", metadata=wrapped)
    mine["desk"] = "B"
    assert dict(first.metadata) == dict(second.metadata) == {"desk": "A"}


def test_empty_metadata_is_stored_as_no_metadata() -> None:
    """An empty dictionary would take up a column in every row."""
    assert Remark("x", metadata={}).metadata is NO_METADATA


@pytest.mark.parametrize(
    "wrong",
    [{1: "x"}, {"x": object()}, {"x": [1]}, {"x": Decimal(1)}, {"x": float("nan")}, {"x": float("inf")}],
)
def test_metadata_rejects_all_but_plain_finite_values(wrong: Any) -> None:
    """Metadata would come back changed, for example NaN as None."""
    with pytest.raises(InvalidEventError, match="metadata"):
        Remark("x", metadata=wrong)


@pytest.mark.parametrize("wrong", [None, "text", ["a"], 5])
def test_metadata_that_is_not_a_mapping_raises(wrong: Any) -> None:
    """The mistake would surface as an AttributeError about ``items``."""
    with pytest.raises(InvalidEventError, match="must be a mapping"):
        Remark("x", metadata=wrong)


def test_metadata_and_ids_round_trip() -> None:
    """The link between an event and its request would be lost at a restart."""
    metadata = {"user": "kim", "try": 3, "share": 0.25, "dry_run": False, "note": None}
    event = Remark("x", metadata=metadata, correlation_id="c-1", causation_id="c-0")
    again = stored_and_read(event)
    assert (again.event_id, again.occurred_at) == (event.event_id, event.occurred_at)
    assert (again.correlation_id, again.causation_id, dict(again.metadata)) == ("c-1", "c-0", metadata)


def test_to_dict_returns_json_serializable_values() -> None:
    """A log line or HTTP reply made from an event would raise TypeError."""

    class Everything(DomainEvent):
        event_type: ClassVar[str] = "domain-event.everything"
        aggregate_type: ClassVar[str] = "thing"
        schema_version: ClassVar[int] = 3
        amount: Decimal
        at: datetime
        side: Side
        by_day: dict[date, tuple[int, ...]]
        seen: frozenset[UUID]
        raw: bytes

        @property
        def aggregate_id(self) -> str:
            return "t-1"

    event = Everything(
        Decimal("1.50"),
        datetime(2020, 1, 1, 9, tzinfo=SEOUL),
        Side.BUY,
        {date(2020, 1, 2): (1, 2)},
        frozenset({UUID(int=1)}),
        b"\x00",
        occurred_at=datetime(2021, 1, 1, tzinfo=UTC),
        metadata={"desk": "A"},
    )
    assert json.loads(json.dumps(event.to_dict())) == {
        "event_id": event.event_id,
        "event_type": "domain-event.everything",
        "schema_version": 3,
        "aggregate_type": "thing",
        "aggregate_id": "t-1",
        "occurred_at": "2021-01-01T00:00:00+00:00",
        "correlation_id": None,
        "causation_id": None,
        "metadata": {"desk": "A"},
        "payload": {
            "amount": "1.50",
            "at": "2020-01-01T09:00:00+09:00",
            "side": "buy",
            "by_day": {"2020-01-02": [1, 2]},
            "seen": ["00000000-0000-0000-0000-000000000001"],
            "raw": "AA==",
        },
    }


@pytest.mark.parametrize("metadata", [{}, {"desk": "A"}])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copying_and_pickling_an_event_keeps_all_its_fields(duplicate: Any, metadata: dict[str, Any]) -> None:
    """An event could not be sent to a worker process: its read-only mapping cannot be pickled."""
    event = Placed("o-1", "KRW-BTC", Decimal(1), metadata=metadata, correlation_id="c")
    again = duplicate(event)
    assert again == event
    assert again.to_dict() == event.to_dict()
    assert type(again.metadata) is type(event.metadata)


def test_caused_by_sets_the_causation_id_and_inherits_the_correlation_id() -> None:
    """The consequences of a request could not be traced."""
    root = Placed("o-1", "KRW-BTC", Decimal(1))
    child = caused_by(Remark("x"), root)
    grandchild = caused_by(Remark("y"), child)
    assert (child.correlation_id, child.causation_id) == (root.event_id, root.event_id)
    assert (grandchild.correlation_id, grandchild.causation_id) == (root.event_id, child.event_id)


def test_caused_by_keeps_ids_set_by_the_caller() -> None:
    """An application's own request id would be overwritten."""
    root = Placed("o-1", "KRW-BTC", Decimal(1))
    own = Remark("x", correlation_id="request-7")
    both = Remark("x", correlation_id="request-7", causation_id="click-3")
    assert caused_by(own, root).correlation_id == "request-7"
    assert caused_by(own, root).causation_id == root.event_id
    assert caused_by(both, root) is both


def test_an_adopted_dataclass_has_the_attributes_of_an_event() -> None:
    """Middleware and statistics would have to know two kinds of events."""
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class PriceSeen:
        symbol: str
        price: int

    register_event(PriceSeen, event_type="price.seen", aggregate_type="symbol", aggregate_id="symbol")
    body = PriceSeen("BTC", 5)
    event: Any = adopt(body)
    assert (event.event_type, event.aggregate_type, event.aggregate_id) == ("price.seen", "symbol", "BTC")
    assert (body_of(event), kind_of(event)) == (body, PriceSeen)
    assert event == adopt(PriceSeen("BTC", 5))
    assert not event != adopt(PriceSeen("BTC", 5))  # noqa: SIM202
    assert hash(event) == hash(adopt(PriceSeen("BTC", 5)))
    assert event != body
    assert event.to_dict()["payload"] == {"symbol": "BTC", "price": 5}


def test_a_private_copy_shares_no_mutable_value() -> None:
    """Promise 20: if one handler sorted a list, the next handler would see it sorted."""
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Basket:
        items: list[str]

    register_event(Basket)
    event, adopted = Remark("x", ["b", "a"], metadata={"desk": "A"}), adopt(Basket(["b", "a"]))
    first: Any = private_copy(event, registry.schema_of(Remark))
    second: Any = private_copy(adopted, registry.schema_of(Basket))
    first.tags.sort()
    second.body.items.sort()
    assert (event.tags, body_of(adopted).items) == (["b", "a"], ["b", "a"])
    assert (first.event_id, first.metadata) == (event.event_id, event.metadata)
    assert second.event_id == adopted.event_id


def test_a_receipt_is_truthy_at_position_0() -> None:
    """``if await bus.publish(event)`` would treat the first event of a log as not published."""
    receipt = Receipt("0190a0a0-0000-7000-8000-000000000000", 0)
    assert receipt
    assert (receipt.position, receipt.sequence) == (0, 0)


def test_adopting_an_unregistered_object_raises() -> None:
    """Publishing a dictionary, or a class instead of an instance, would fail somewhere later."""
    with pytest.raises(UnregisteredEventError, match="dict"):
        adopt({"type": "order.placed"})
    with pytest.raises(InvalidEventError, match=r"publish an instance, Placed\(…\)"):
        adopt(Placed)
    with pytest.raises(UnregisteredEventError, match="DomainEvent"):
        stored_and_read(DomainEvent())
    assert issubclass(UnregisteredEventError, PabalError)
