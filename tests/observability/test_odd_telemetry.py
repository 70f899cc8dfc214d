"""Logging and traces in unusual cases: errors that cannot be formatted, metadata with other meanings."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage
from pabal.errors import NonFiniteNumberError, UsageError
from pabal.observability.logging import log_reports
from pabal.observability.opentelemetry import instrument
from pabal.observability.prometheus import PrometheusExporter


class Weighed(DomainEvent):
    event_type: ClassVar[str] = "telemetry.weighed"
    weight: float


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


async def test_an_error_whose_str_raises_does_not_stop_logging(caplog: pytest.LogCaptureFixture) -> None:
    """The listener would be removed, and nothing of this bus be logged any more."""
    bus = InMemoryEventBus()
    log_reports(bus, "shop")

    async def fail(event: Weighed) -> None:
        raise UnprintableError if event.weight == 1 else ConnectionError("the scales are gone")

    bus.subscribe(Weighed, fail, retry_count=0)
    with caplog.at_level(logging.INFO, "shop"):
        async with bus:
            for weight in (1.0, 2.0):
                await bus.publish(Weighed(weight))
                await bus.drain()
    errors = [record.__dict__["pabal_error"] for record in caplog.records if "pabal_error" in vars(record)]
    assert errors == ["<its str() raised RuntimeError>", "the scales are gone"]


def _recording() -> tuple[TracerProvider, InMemorySpanExporter]:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider, spans


@pytest.mark.parametrize("batch", [None, 10])
@pytest.mark.parametrize(
    "metadata",
    [
        {"baggage": 2},
        {"traceparent": 5},
        {"traceparent": "00-nonsense"},
        {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": 7},
    ],
)
async def test_invalid_trace_metadata_does_not_prevent_delivery(
    metadata: dict[str, object], batch: int | None
) -> None:
    """Every attempt would fail before its handler is called, and the event be parked."""
    provider, spans = _recording()
    storage = InMemoryEventStorage()
    bus = InMemoryEventBus(storage)
    instrument(bus, tracer=provider.get_tracer("test"))
    handled: list[object] = []
    bus.subscribe(Weighed, handled.append, start="beginning", retry_count=0, batch=batch)
    await storage.store_event(Weighed(1.0, metadata=metadata))  # by a publisher without tracing
    async with bus:
        await bus.publish(Weighed(2.0))
        await bus.drain()
        assert await bus.dead_letters.list() == []
    assert handled
    assert all(span.status.is_ok for span in spans.get_finished_spans())


async def test_the_span_of_a_failed_publish_contains_no_payload() -> None:
    """Parts of an event quoted by an error would reach the tracing backend."""
    provider, spans = _recording()
    bus = InMemoryEventBus()
    instrument(bus, tracer=provider.get_tracer("test"))
    async with bus:
        with pytest.raises(NonFiniteNumberError, match="weight = nan"):
            await bus.publish(Weighed(float("nan")))
    [span] = spans.get_finished_spans()
    assert not span.status.is_ok
    assert dict(span.attributes or {})["error.type"] == "NonFiniteNumberError"
    assert "weight" not in span.to_json()


def test_a_registry_accepts_only_one_exporter() -> None:
    """Every metric would be described twice, and a strict parser reject them all."""
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry)
    exporter.watch(InMemoryEventBus(), name="first")
    with pytest.raises(UsageError, match="watch"):
        PrometheusExporter(registry)
    exporter.watch(InMemoryEventBus(), name="second")
    lines = exporter.text().splitlines()
    assert lines.count("# TYPE pabal_bus_running gauge") == 1
    running = [line for line in lines if line.startswith("pabal_bus_running")]
    assert running == ['pabal_bus_running{bus="first"} 0.0', 'pabal_bus_running{bus="second"} 0.0']
    only = generate_latest(registry.restricted_registry(["pabal_bus_running"])).decode()
    assert [line for line in only.splitlines() if not line.startswith("#")] == running


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ({"port": 70000}, "port is 70000; it must be"),
        ({"port": -1}, "port is -1; it must be"),
        ({"port": "9464"}, "port is '9464'; it must be"),
        ({"host": "a..b"}, "'a..b' is not a host to listen on"),
        ({"host": "no-such-host.invalid"}, "'no-such-host.invalid' is not a host to listen on"),
    ],
    ids=str,
)
async def test_serve_rejects_an_invalid_port_or_host(address: dict[str, Any], message: str) -> None:
    """A digit too many would end in an OverflowError that names no setting."""
    with pytest.raises(UsageError, match=message):
        await PrometheusExporter().serve(**address)


async def test_a_scrape_succeeds_while_the_event_loop_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each restart of an application would break a scrape, with a traceback in its log."""
    exporter = PrometheusExporter()
    exporter.watch(InMemoryEventBus(), name="shop")
    _, end = await exporter.serve(port=0)
    await asyncio.to_thread(end)
    closed_loop = asyncio.new_event_loop()
    closed_loop.close()
    monkeypatch.setattr(closed_loop, "is_running", lambda: True)  # as it was a moment ago
    monkeypatch.setattr(exporter, "_loop", closed_loop)
    assert 'pabal_bus_running{bus="shop"} 0.0' in exporter.text()
