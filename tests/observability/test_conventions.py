"""Metrics and spans follow the naming conventions that other tools rely on."""

from __future__ import annotations

import re
from typing import ClassVar

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client.parser import text_string_to_metric_families

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage
from pabal.observability.opentelemetry import instrument
from pabal.observability.prometheus import PrometheusExporter

_SUFFIXES = {
    "counter": ["_total", "_created"],
    "gauge": [""],
    "histogram": ["_bucket", "_sum", "_count", "_created"],
}


class Rung(DomainEvent):
    event_type: ClassVar[str] = "conventions.rung"
    bell: str


async def _handle(event: Rung) -> None: ...


async def test_metric_names_follow_the_conventions_of_prometheus() -> None:
    """An alert would take a counter for a gauge, or milliseconds for seconds."""
    bus = InMemoryEventBus()
    exporter = PrometheusExporter()
    exporter.watch(bus, durations=True)
    bus.subscribe(Rung, _handle, name="ear")
    async with bus:
        await bus.publish(Rung("a"))
    (seconds,) = re.findall(r"pabal_attempt_duration_seconds_sum{.*?} (\S+)", exporter.text())
    assert 0 < float(seconds) < 60
    families = [
        family
        for family in text_string_to_metric_families(exporter.text())
        if not family.name.endswith("_created")  # added by prometheus_client: when a histogram began
    ]
    assert {family.type for family in families} == set(_SUFFIXES)
    for family in families:
        assert re.fullmatch(r"pabal_[a-z_]+", family.name), family.name
        assert family.documentation, family.name
        is_time = re.search(r"duration|uptime|latency|_(ms|millis|minutes|seconds)$", family.name) is not None
        assert is_time == family.name.endswith("_seconds"), family.name
        assert not re.search(r"_(total|count|sum|bucket)$", family.name), family.name
        assert {sample.name for sample in family.samples} <= {
            f"{family.name}{suffix}" for suffix in _SUFFIXES[family.type]
        }


async def test_spans_follow_the_messaging_conventions_of_opentelemetry() -> None:
    """A tracing backend would not recognize them as sent and received messages."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    bus = InMemoryEventBus()
    instrument(bus, tracer=provider.get_tracer("test"))
    bus.subscribe(Rung, _handle, name="ear")
    async with bus:
        receipt = await bus.publish(Rung("a"))
    described = {span.name: (span.kind, dict(span.attributes or {})) for span in spans.get_finished_spans()}
    shared = {
        "messaging.system": "pabal",
        "messaging.destination.name": "conventions.rung",
        "messaging.message.id": receipt.event_id,
    }
    assert described == {
        "publish conventions.rung": (
            SpanKind.PRODUCER,
            {**shared, "messaging.operation.type": "send", "messaging.operation.name": "publish"},
        ),
        "process conventions.rung": (
            SpanKind.CONSUMER,
            {
                **shared,
                "messaging.operation.type": "process",
                "messaging.operation.name": "process",
                "messaging.consumer.group.name": "ear",
                "pabal.attempt": 1,
            },
        ),
    }


async def test_a_span_of_a_stored_event_names_its_place_and_its_chain() -> None:
    """Whoever looks at a slow span could find neither the event in the log nor what had caused it."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    bus = InMemoryEventBus(event_storage=InMemoryEventStorage())
    instrument(bus, tracer=provider.get_tracer("test"))
    bus.subscribe(Rung, _handle, name="ear")
    async with bus:
        await bus.publish(Rung("a", correlation_id="tower"))
        await bus.drain()
    (attempt,) = [span for span in spans.get_finished_spans() if span.kind is SpanKind.CONSUMER]
    assert attempt.attributes is not None
    assert attempt.attributes["pabal.position"] == 1
    assert attempt.attributes["messaging.message.conversation_id"] == "tower"


async def test_an_attempt_on_an_old_event_is_linked_to_its_publish() -> None:
    """Whoever looks at a replay could not find the request that had published the event."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    bus = InMemoryEventBus()
    instrument(bus, tracer=provider.get_tracer("test"), link_after=-1.0)
    bus.subscribe(Rung, _handle, name="ear")
    async with bus:
        await bus.publish(Rung("a"))
    by_kind = {span.kind: span for span in spans.get_finished_spans()}
    (link,) = by_kind[SpanKind.CONSUMER].links
    published = by_kind[SpanKind.PRODUCER].context
    assert published is not None
    assert (by_kind[SpanKind.CONSUMER].parent, link.context.span_id) == (None, published.span_id)
