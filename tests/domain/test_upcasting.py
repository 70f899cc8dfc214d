"""Old payloads are brought to the current class by upcasters."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

import msgspec
import pytest

from pabal.domain import DomainEvent, register_event, registry, upcaster
from pabal.domain.envelope import decode_event
from pabal.errors import DecodeError, UnknownEventTypeError, UpcasterError
from tests.domain.support import encode, label, row_of, stored_as


class Paid(DomainEvent):
    """Version 1 had ``won``, version 2 renamed it to ``amount``, version 3 added the currency."""

    event_type: ClassVar[str] = "upcasting-test.paid"
    schema_version: ClassVar[int] = 3
    amount: Decimal
    currency: str


def rename(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"amount": str(payload["won"])}


def add_currency(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**payload, "currency": "KRW"}


@pytest.fixture(name="chain")
def _chain() -> None:
    upcaster(Paid.event_type, from_version=1)(rename)
    upcaster(Paid.event_type, from_version=2)(add_currency)


@pytest.mark.usefixtures("chain")
def test_rows_of_all_versions_decode_to_identical_events() -> None:
    """Promise 34: a chain from version 1 to 3 gives exactly what version 3 itself writes, type by type."""
    rows = [
        stored_as(Paid, b'{"won":1500}', 1),
        stored_as(Paid, b'{"amount":"1500"}', 2),
        stored_as(Paid, b'{"amount":"1500","currency":"KRW"}', 3),
    ]
    events = [decode_event(row) for row in rows]
    assert events == [Paid(Decimal(1500), "KRW")] * 3
    assert {repr(event.amount) for event in events} == {"Decimal('1500')"}  # type: ignore[attr-defined]


def test_new_events_are_stored_in_the_current_version() -> None:
    """A new event would be upcast when it is read, and come out wrong."""
    record = encode(Paid(Decimal(1), "KRW"))
    assert (record.schema_version, record.payload) == (3, b'{"amount":"1","currency":"KRW"}')


def test_the_upcaster_decorator_returns_the_function_unchanged() -> None:
    """The function could not be tested by itself."""
    assert upcaster("some.event", from_version=1)(rename) is rename


def test_a_missing_upcaster_raises_an_error_that_names_its_versions() -> None:
    """Promise 24: the event is parked with its bytes, and the reason names the missing upcaster."""
    upcaster(Paid.event_type, from_version=1)(rename)
    with pytest.raises(DecodeError, match="no upcaster from version 2 to 3") as caught:
        decode_event(stored_as(Paid, b'{"won":1500}', 1)._replace(position=17))
    assert (caught.value.event_type, caught.value.position) == (Paid.event_type, 17)


def test_an_event_that_lacks_a_new_field_says_how_a_class_is_changed() -> None:
    """Whoever adds a field without raising the version would be told that the version is not old."""
    row = stored_as(Paid, b"{}", Paid.schema_version)
    with pytest.raises(
        DecodeError, match=r"missing required .* a default, or raise schema_version and write an"
    ):
        decode_event(row)


def test_an_upcaster_that_raises_causes_a_decode_error_that_names_it() -> None:
    """Promise 24: a KeyError in an upcaster would look like a handler's failure and be retried."""
    upcaster(Paid.event_type, from_version=1)(rename)
    with pytest.raises(DecodeError, match=r"upcaster from version 1 failed: KeyError\('won'\)") as caught:
        decode_event(stored_as(Paid, b'{"euro":1}', 1))
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_upcaster_that_returns_no_mapping_causes_a_decode_error() -> None:
    """Forgetting ``return`` would give a payload of None."""

    @upcaster(Paid.event_type, from_version=2)
    def forgetful(payload: Mapping[str, Any]) -> Any:
        add_currency(payload)

    with pytest.raises(DecodeError, match="returned None, not a mapping"):
        decode_event(stored_as(Paid, b'{"amount":"1"}', 2))


@pytest.mark.parametrize("bad", [object(), float, "\ud800", {"deep": {(3, "\ud800")}}], ids=label)
def test_an_upcaster_that_returns_a_value_without_json_form_causes_a_decode_error(bad: Any) -> None:
    """Promise 24: reading the whole log would end there."""
    upcaster(Paid.event_type, from_version=2)(lambda payload: {**payload, "currency": bad})
    with pytest.raises(DecodeError):
        decode_event(stored_as(Paid, b'{"amount":"1"}', 2))


@pytest.mark.usefixtures("chain")
def test_an_upcast_payload_that_does_not_fit_the_class_raises_a_decode_error() -> None:
    """Promise 24: a payload that is wrong after the last step would reach the handler."""
    with pytest.raises(DecodeError, match="amount"):
        decode_event(stored_as(Paid, b'{"won":"much"}', 1))


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b'{"won":'])
@pytest.mark.parametrize("version", [1, 3])
def test_a_payload_that_is_not_json_raises_a_decode_error_in_every_version(
    payload: bytes, version: int
) -> None:
    """Promise 24: old and current versions are decoded in different places, and must fail alike."""
    upcaster(Paid.event_type, from_version=1)(rename)
    upcaster(Paid.event_type, from_version=2)(add_currency)
    with pytest.raises(DecodeError):
        decode_event(stored_as(Paid, payload, version))


def test_an_event_of_a_newer_schema_version_raises_a_decode_error() -> None:
    """A program that was rolled back would read fields whose meaning it does not know."""
    with pytest.raises(
        DecodeError, match="stored as version 4, the class knows versions up to 3: a newer release wrote it"
    ):
        decode_event(stored_as(Paid, b'{"amount":"1","currency":"KRW"}', 4))


def test_an_unknown_event_type_raises_an_unknown_event_type_error() -> None:
    """Promise 34: a live subscription skips and reports it, so it must differ from damage."""
    with pytest.raises(UnknownEventTypeError, match=r"renamed, set its event_type = 'upcasting-test\.gone'"):
        decode_event(stored_as(Paid, b"{}", 1)._replace(event_type="upcasting-test.gone"))
    assert issubclass(UnknownEventTypeError, DecodeError)


def test_a_stored_event_that_fails_its_post_init_raises_a_decode_error() -> None:
    """Promise 24: a check added later would make old events fail in the middle of a replay."""

    class Strict(DomainEvent):
        depth: int

        def __post_init__(self) -> None:
            if self.depth < 0:
                raise ValueError("too deep")

    with pytest.raises(DecodeError, match="too deep"):
        decode_event(stored_as(Strict, b'{"depth":-1}', 1))


def test_fields_with_defaults_need_no_upcaster() -> None:
    """Adding an optional field would need a new version each time."""

    class Grown(DomainEvent):
        size: int
        colour: str = "red"
        tags: list[str] = msgspec.field(default_factory=list)

    first, second = (decode_event(stored_as(Grown, b'{"size":1,"gone":true}', 1)) for _ in range(2))
    assert first == second == Grown(1, "red", [])
    assert first.tags is not second.tags  # type: ignore[attr-defined]


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"a":[1]}', b'{"a":1e999}'])
def test_unreadable_metadata_raises_a_decode_error(metadata: bytes) -> None:
    """A hand-written row with a valid checksum would end the reading of the whole log."""

    @dataclass(frozen=True)
    class Empty:
        pass

    row = stored_as(Paid, b'{"amount":"1","currency":"KRW"}', 3)._replace(metadata=metadata)
    adopted = row_of(encode(register_event(Empty)()))._replace(metadata=metadata)
    for damaged in (row, adopted):
        with pytest.raises(DecodeError):
            decode_event(damaged)


def test_a_second_upcaster_for_the_same_step_raises() -> None:
    """Which of the two runs would depend on the order of imports."""
    upcaster("some.event", from_version=1)(rename)
    upcaster("some.event", from_version=1)(rename)  # the same again, as in a reloaded module
    with pytest.raises(UpcasterError, match="already does this step") as caught:
        upcaster("some.event", from_version=1)(add_currency)
    assert (caught.value.event_type, caught.value.from_version) == ("some.event", 1)


@pytest.mark.parametrize("version", [0, "1", True])
def test_an_upcaster_from_a_version_that_no_event_has_raises(version: Any) -> None:
    """The upcaster would never run."""
    with pytest.raises(UpcasterError, match="start at 1"):
        upcaster("some.event", from_version=version)(rename)


def test_an_upcaster_for_a_class_instead_of_a_type_name_raises() -> None:
    """The upcaster would never run, and each old event would be parked as one that lacks it."""

    class Upgraded(DomainEvent):
        pass

    with pytest.raises(UpcasterError, match="give the type by its name"):
        upcaster(Upgraded, from_version=1)(rename)  # type: ignore[arg-type]


def test_an_async_upcaster_raises() -> None:
    """The schema check would pass, but reading each stored event would fail."""

    async def later(payload: object) -> object:
        return payload

    with pytest.raises(UpcasterError, match="make it a plain def"):
        upcaster("some.event", from_version=1)(later)  # type: ignore[arg-type]


def test_isolated_unregisters_upcasters() -> None:
    """One test's upcaster would change the payloads of the next."""
    with registry.isolated():
        upcaster("some.event", from_version=1)(rename)
    upcaster("some.event", from_version=1)(add_currency)
