"""Logs, metrics and traces of a bus on a real server."""

from __future__ import annotations

import asyncio
import logging

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pabal.brokers.redis import RedisEventBus
from pabal.observability.logging import log_reports
from pabal.observability.opentelemetry import instrument
from pabal.observability.prometheus import PrometheusExporter
from tests.brokers.events import Moved, moves
from tests.brokers.server import Server


def _make_bus(server: Server, namespace: str) -> RedisEventBus:
    return RedisEventBus(server.url, group="g", namespace=namespace, partitions=4, lease=1.0)


async def test_metrics_and_log_lines_cover_a_bus_on_a_server(
    shared_server: Server, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that moves to Redis would lose its metrics and log lines."""
    bus = _make_bus(shared_server, namespace)
    log_reports(bus, "moves")
    exporter = PrometheusExporter()
    exporter.watch(bus, name="moves")

    async def handle(event: Moved) -> None: ...

    bus.subscribe(Moved, handle, name="sub")
    with caplog.at_level(logging.INFO, "moves"):
        async with bus:
            await bus.publish_batch(moves(3, 12))
            await bus.drain(timeout=30)
            text = exporter.text()
    assert 'pabal_deliveries_handled_total{bus="moves",subscription="sub"} 12.0' in text
    assert 'pabal_events_lost_total{bus="moves"} 0.0' in text
    taken = [record for record in caplog.records if vars(record).get("pabal_report") == "PartitionTaken"]
    assert len(taken) == 4
    assert {record.levelno for record in taken} == {logging.INFO}


async def test_a_trace_continues_through_the_server(shared_server: Server, namespace: str) -> None:
    """The work a request causes in another process would appear in a separate trace."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    publisher, consumer = _make_bus(shared_server, namespace), _make_bus(shared_server, namespace)
    for bus in (publisher, consumer):
        instrument(bus, tracer=provider.get_tracer("test"))
    handled = asyncio.Event()

    async def handle(event: Moved) -> None:
        handled.set()

    consumer.subscribe(Moved, handle, name="sub")
    async with consumer, publisher:
        await publisher.publish(Moved("k", 1))
        await asyncio.wait_for(handled.wait(), 30)
        await consumer.drain(timeout=30)
    publish, process = sorted(spans.get_finished_spans(), key=lambda span: span.name, reverse=True)
    assert publish.context is not None
    assert process.parent is not None
    assert (publish.name.split()[0], process.name.split()[0]) == ("publish", "process")
    assert process.parent.span_id == publish.context.span_id
