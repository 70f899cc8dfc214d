"""Publishing an invalid value raises an error that says what to do, and publishes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage, SqliteEventStorage
from pabal.errors import (
    InvalidEventError,
    NaiveDatetimeError,
    NonFiniteNumberError,
    PayloadTooLargeError,
    UnregisteredEventError,
    UnserializableEventError,
    UsageError,
)
from tests.bus.samples import Measured, Moved, Ticket, Unknown
from tests.bus.support import Backend, Recorder


async def assert_rejected(
    backend: Backend, event: Any, error: type[InvalidEventError], message: str
) -> InvalidEventError:
    """Publish a bad value in every way, and check that nothing was published and the bus still works."""
    bus = await backend.start_bus()
    seen: Recorder[Any] = Recorder()

    async def handle(event: Any) -> None:
        seen.add(event)

    bus.subscribe("*", handle)
    with pytest.raises(error, match=message):
        await bus.publish_batch([Moved("before"), event])
    with pytest.raises(error, match=message):
        await bus.publish(event)
    with pytest.raises(error, match=message) as caught:
        await bus.publish(event, delay=10)
    await bus.drain(60)
    assert len(seen) == 0
    statistics = bus.get_statistics()
    for key in ("events_published", "events_scheduled", "queue_size"):
        assert statistics[key] == 0, key
    if bus.storage is not None:
        assert await bus.storage.head() == 0
    await bus.publish(Moved("after"))
    await bus.drain(60)
    assert len(seen) == 1
    return caught.value


@pytest.mark.parametrize("event", [Unknown("x"), object(), "text", 42, None, {"type": "dict"}])
async def test_publish_rejects_an_unregistered_object(backend: Backend, event: Any) -> None:
    """An object that no subscription can match would vanish silently."""
    await assert_rejected(backend, event, UnregisteredEventError, r"not a registered event: .*register_event")


async def test_publish_rejects_an_event_class_instead_of_an_instance(backend: Backend) -> None:
    """Forgotten parentheses are a common mistake, and would publish nothing that can be delivered."""
    await assert_rejected(backend, Moved, InvalidEventError, r"publish an instance, Moved\(…\)")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
async def test_publish_rejects_a_non_finite_number(backend: Backend, value: float) -> None:
    """NaN has no JSON form, equals nothing, and comes from a calculation that went wrong earlier."""
    error = await assert_rejected(backend, Measured(value), NonFiniteNumberError, "finite")
    assert isinstance(error, NonFiniteNumberError)
    assert (error.event_type, error.field) == ("value.measured", "value")


async def test_publish_rejects_a_value_that_does_not_match_its_declared_type(stored: Backend) -> None:
    """The value would be read back changed, or not at all."""
    event: Any = Measured(label=object())  # type: ignore[arg-type]
    await assert_rejected(stored, event, UnserializableEventError, "cannot be stored as declared")


async def test_publish_checks_the_field_types_of_a_registered_dataclass(stored: Backend) -> None:
    """Registered classes must be checked like subclasses of DomainEvent."""
    event = Ticket("A1", [1])  # type: ignore[list-item]
    await assert_rejected(stored, event, UnserializableEventError, "cannot be stored as declared")


async def test_publish_rejects_a_naive_datetime_in_a_field_declared_aware(stored: Backend) -> None:
    """A time without an offset is ambiguous; the next reader would have to guess."""
    event = Measured(taken_at=datetime(2024, 1, 1))
    error = await assert_rejected(stored, event, NaiveDatetimeError, "naive datetime in taken_at, .*timezone")
    assert isinstance(error, NaiveDatetimeError)
    assert error.field == "taken_at"


def test_an_event_cannot_be_created_with_a_naive_occurred_at() -> None:
    """Nothing later could correct the header."""
    with pytest.raises(NaiveDatetimeError, match="occurred_at"):
        Moved("rook", occurred_at=datetime(2024, 1, 1))
    assert Moved("rook", occurred_at=datetime(2024, 1, 1, tzinfo=UTC))


async def test_publish_rejects_a_payload_above_the_size_limit(stored: Backend) -> None:
    """The limit is one megabyte by default: a log of large payloads slows every reader down."""
    error = await assert_rejected(
        stored, Measured(label="x" * (1 << 20)), PayloadTooLargeError, "publish a reference"
    )
    assert isinstance(error, PayloadTooLargeError)
    assert error.limit == 1 << 20
    assert error.size > error.limit


@pytest.mark.parametrize("kind", ["memory storage", "sqlite"])
async def test_the_payload_size_limit_is_configurable_and_inclusive(kind: str, tmp_path: Path) -> None:
    """A payload of exactly the limit would be rejected, or one byte more accepted."""
    size = len(b'{"value":0.0,"taken_at":null,"label":""}')
    storage: Any = (
        InMemoryEventStorage(max_payload_bytes=size + 10)
        if kind == "memory storage"
        else SqliteEventStorage(tmp_path / "events.db", max_payload_bytes=size + 10)
    )
    async with storage, InMemoryEventBus(storage) as bus:
        await bus.publish(Measured(label="x" * 10))
        with pytest.raises(PayloadTooLargeError):
            await bus.publish(Measured(label="x" * 11))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"worker_count": 0}, "worker_count"),
        ({"worker_count": True}, "worker_count"),
        ({"worker_count": 2.5}, "worker_count"),
        ({"max_queue_size": 0}, "max_queue_size"),
        ({"max_queue_size": "many"}, "max_queue_size"),
        ({"backpressure": "drop_newest"}, "backpressure"),
    ],
)
def test_the_bus_rejects_invalid_options(options: dict[str, Any], message: str) -> None:
    """A bus without workers would accept everything and handle nothing."""
    with pytest.raises(UsageError, match=message):
        InMemoryEventBus(**options)


async def test_use_rejects_middleware_that_is_not_callable(memory: Backend) -> None:
    """It would fail at every delivery instead of once, when it is added."""
    with pytest.raises(UsageError, match="middleware"):
        memory.make_bus().use("not a function")  # type: ignore[arg-type]


async def test_the_error_for_an_invalid_event_carries_its_event_id(memory: Backend) -> None:
    """Programs decide by fields; messages are for people."""
    bus = await memory.start_bus()
    with pytest.raises(NonFiniteNumberError) as caught:
        await bus.publish(Measured(float("nan"), event_id="01890a5d-ac96-774b-bcce-b302099a8057"))
    assert caught.value.event_id == "01890a5d-ac96-774b-bcce-b302099a8057"
