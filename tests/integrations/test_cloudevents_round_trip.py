"""Every event survives a round trip through its CloudEvent, with any values and versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar

from hypothesis import given
from hypothesis import strategies as st

from pabal import DomainEvent, register_event, upcaster
from pabal.integrations.cloudevents import from_cloudevent, to_cloudevent
from pabal.observability.opentelemetry import with_trace


class Measured(DomainEvent):
    event_type: ClassVar[str] = "cloud.measured"
    aggregate_type: ClassVar[str] = "probe"
    schema_version: ClassVar[int] = 2
    probe: str
    value: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def aggregate_id(self) -> str:
        return self.probe


@upcaster("cloud.measured", from_version=1)
def _rename(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    rest = dict(payload)
    return {"probe": rest.pop("sensor"), **rest}


@dataclass(frozen=True)
class Foreign:
    name: str


register_event(Foreign, event_type="cloud.foreign", aggregate_id=lambda foreign: foreign.name)

_ZONES = st.sampled_from([UTC, timezone(timedelta(hours=9))])
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_PLAIN = st.one_of(_TEXTS, st.integers(-(2**53), 2**53), st.booleans(), st.none())
_EVENTS = st.builds(
    Measured,
    probe=_TEXTS,
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    notes=st.lists(_TEXTS, max_size=3).map(tuple),
    occurred_at=st.datetimes(
        datetime(1971, 1, 1),
        datetime(2200, 1, 1),
        timezones=_ZONES,
    ),
    correlation_id=st.none() | _TEXTS,
    causation_id=st.none() | _TEXTS,
    metadata=st.dictionaries(_TEXTS | st.just("traceparent"), _PLAIN, max_size=4),
)


@given(_EVENTS)
def test_any_event_survives_a_round_trip(event: Measured) -> None:
    """Something would change on the way through another system, and only with some events."""
    document = json.loads(json.dumps(to_cloudevent(event, "/lab")))
    assert from_cloudevent(document).to_dict() == event.to_dict()


def test_a_document_of_an_older_version_is_upcast() -> None:
    """Last year's export could not be imported."""
    document = to_cloudevent(Measured("p-1", 1.5), "/lab")
    document["data"] = {"sensor": "p-1", "value": 1.5}
    document["pabalversion"] = 1
    assert from_cloudevent(document) == Measured("p-1", 1.5)


def test_a_registered_object_survives_a_round_trip() -> None:
    """Classes that do not derive from DomainEvent could be published, but not exported."""
    document = to_cloudevent(Foreign("x"), "/lab")
    assert (document["type"], document["subject"]) == ("cloud.foreign", "x")
    assert from_cloudevent(document).body == Foreign("x")


def test_a_document_with_only_the_required_attributes_is_accepted() -> None:
    """Only pabal's own documents could be read."""
    document = {
        "specversion": "1.0",
        "id": "a-1",
        "source": "https://elsewhere.example",
        "type": "cloud.measured",
        "data": {"probe": "p-2"},
    }
    event = from_cloudevent(document)
    assert event == Measured("p-2")
    assert dict(event.metadata) == {
        "cloudevent_id": "a-1",
        "cloudevent_source": "https://elsewhere.example",
    }


def test_a_document_carries_the_trace_of_its_event() -> None:
    """A trace would end where the event leaves the system."""
    parent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    event = Measured("p-1", metadata={"traceparent": parent, "tracestate": "k=v"})
    document = to_cloudevent(event, "/lab")
    assert (document["traceparent"], document["tracestate"]) == (parent, "k=v")
    assert "pabalmetadata" not in document
    assert with_trace(event).metadata == event.metadata
