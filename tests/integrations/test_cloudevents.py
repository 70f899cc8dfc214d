"""CloudEvents, compared with the official SDK."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_structured_event

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage, SqliteEventStorage
from pabal.errors import InvalidEventError, PabalError
from pabal.integrations.cloudevents import from_cloudevent, to_cloudevent, view_to_cloudevent
from pabal.operations import operations_of


class Billed(DomainEvent):
    event_type: ClassVar[str] = "cloud.billed"
    aggregate_type: ClassVar[str] = "bill"
    bill: str
    amount: Decimal

    @property
    def aggregate_id(self) -> str:
        return self.bill


def billed() -> Billed:
    return Billed(
        "b-1",
        Decimal("1.50"),
        occurred_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        correlation_id="c",
        causation_id="k",
        metadata={"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "desk": "서울", "n": 3},
    )


def _as_dict(event: Any) -> Any:
    return event.to_dict()


def test_an_event_survives_a_round_trip_through_the_official_sdk() -> None:
    """A receiver with the standard library would read something else than was sent."""
    event = billed()
    body = json.dumps(to_cloudevent(event, "/shop")).encode()
    message = HTTPMessage({"content-type": "application/cloudevents+json"}, body)
    parsed = from_http_event(message)
    assert parsed.get_type() == "cloud.billed"
    assert parsed.get_subject() == "b-1"
    assert parsed.get_time() == event.occurred_at
    assert parsed.get_extension("correlationid") == "c"
    decoded = from_cloudevent(json.loads(to_structured_event(parsed).body))
    assert _as_dict(decoded) == _as_dict(event)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"specversion": "0.3"},
        {"data": "text"},
        {"time": "yesterday"},
        {"type": "nobody.knows"},
        {"pabalmetadata": "[1"},
        {"pabalmetadata": '[["desk", "a"]]'},
        {"data": {"bill": 1}},
        {"id": ""},
        {"id": "\ud800"},
        {"source": "\ud800", "id": "7"},
        {"pabalversion": "x"},
        {"pabalversion": True},
        {"pabalversion": 99},
        {"correlationid": 5},
        {"time": 5},
        {"time": "2026-01-02T03:04:05"},
        {"pabalmetadata": '{"nested": {}}'},
    ],
)
def test_from_cloudevent_rejects_an_invalid_document_with_a_pabal_error(broken: dict[str, Any]) -> None:
    """A broken document from another system would surface as a bare KeyError."""
    document = {**to_cloudevent(billed(), "/shop"), **broken} if broken else {}
    with pytest.raises(PabalError):
        from_cloudevent(document)


def test_to_cloudevent_rejects_an_empty_source() -> None:
    """Documents that no SDK accepts would be sent."""
    with pytest.raises(InvalidEventError, match="source"):
        to_cloudevent(billed(), "")


async def test_an_event_of_another_publisher_is_stored_once_whatever_its_id(
    tmp_path: Path,
) -> None:
    """Few publishers use UUIDs as ids: their events could not be stored, or would be stored again."""
    document = {**to_cloudevent(billed(), "https://elsewhere.example/bills"), "id": "bill/2026/7"}
    first, second = from_cloudevent(document), from_cloudevent(document)
    assert first.event_id == second.event_id == str(UUID(first.event_id))
    assert first.event_id != from_cloudevent({**document, "source": "/another"}).event_id
    assert (first.metadata["cloudevent_id"], first.metadata["cloudevent_source"]) == (
        "bill/2026/7",
        "https://elsewhere.example/bills",
    )
    assert first.metadata["desk"] == "서울"
    async with SqliteEventStorage(tmp_path / "log.db") as storage:
        assert await storage.store_event(first) == await storage.store_event(second) == 1


async def test_an_event_view_without_its_payload_gives_a_document_without_data() -> None:
    """There would be a value that is not JSON."""
    async with InMemoryEventBus(InMemoryEventStorage()) as bus, operations_of(bus) as operations:
        await bus.publish(billed())
        [view] = (await operations.events(payloads=False)).events
    document = view_to_cloudevent(view, "/shop")
    assert "data" not in document
    assert json.loads(json.dumps(document))["id"] == view.event_id


def test_an_attribute_that_is_null_counts_as_unset() -> None:
    """The standard says so, and documents from serializers that write every property would be rejected."""
    document = to_cloudevent(billed(), "/shop")
    null = ("time", "correlationid", "causationid", "traceparent", "tracestate", "pabalmetadata")
    unset = {name: value for name, value in document.items() if name not in (*null, "pabalversion")}
    event = from_cloudevent({**unset, **dict.fromkeys((*null, "pabalversion", "subject", "custom"))})
    assert event == billed()
    assert event.metadata == {}
    assert event.correlation_id == from_cloudevent(unset).correlation_id


def test_a_time_with_lowercase_letters_is_accepted() -> None:
    """RFC 3339 allows them; events of such publishers would be rejected."""
    event = from_cloudevent({**to_cloudevent(billed(), "/shop"), "time": "2026-05-01t09:30:00.25z"})
    assert event.occurred_at == datetime(2026, 5, 1, 9, 30, 0, 250_000, tzinfo=UTC)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+09:00", "9999-12-31T23:59:59-09:00"])
def test_a_time_outside_the_range_of_utc_is_rejected_as_a_broken_attribute(time: str) -> None:
    """One such line would end an import in a traceback, without its line number."""
    with pytest.raises(InvalidEventError, match="has a broken attribute"):
        from_cloudevent({**to_cloudevent(billed(), "/shop"), "time": time})
