"""Logging, metrics and traces of a bus with real components."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette

from pabal import DomainEvent, EventBusFactory, InMemoryEventBus, RetryPolicy, register_event
from pabal.errors import UsageError
from pabal.integrations.starlette import bus_lifespan
from pabal.observability import prometheus
from pabal.observability.logging import LEVELS, log_reports, mask_secrets
from pabal.observability.opentelemetry import instrument, with_trace
from pabal.observability.prometheus import PrometheusExporter
from pabal.ports import telemetry

ROOT = Path(__file__).parents[2]


class Metered(DomainEvent):
    event_type: ClassVar[str] = "telemetry.metered"
    card: str


async def _fail(event: Metered) -> None:
    raise ConnectionError(f"password=hunter2 for {event.card[:0]}desk")


# -- logging ------------------------------------------------------------------------------------------------


async def test_a_failure_is_logged_with_fields_but_no_payload_and_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Card numbers and passwords would be in log files."""
    bus = InMemoryEventBus()
    log_reports(bus, "shop")
    bus.subscribe(Metered, _fail, name="charge", retry_count=0)
    with caplog.at_level(logging.INFO, "shop"):
        async with bus:
            await bus.publish(Metered("4111-1111"))
    failed, parked = caplog.records
    assert (failed.levelno, parked.levelno) == (logging.WARNING, logging.ERROR)
    assert vars(failed)["pabal_report"] == "AttemptFailed"
    assert vars(failed)["pabal_subscription"] == "charge"
    assert vars(failed)["pabal_error_type"] == "ConnectionError"
    assert "hunter2" not in caplog.text
    assert "4111" not in caplog.text
    assert "***" in vars(failed)["pabal_error"]


async def test_log_reports_stops_when_its_end_function_is_called(caplog: pytest.LogCaptureFixture) -> None:
    """A long-lived bus would log twice after a second set-up."""
    bus = InMemoryEventBus()
    end = log_reports(bus, "shop")
    end()
    end()
    bus.subscribe(Metered, _fail, name="charge", retry_count=0)
    with caplog.at_level(logging.DEBUG, "shop"):
        async with bus:
            await bus.publish(Metered("1"))
    assert [record for record in caplog.records if record.name == "shop"] == []


async def test_log_reports_honours_the_level_given_for_a_report(caplog: pytest.LogCaptureFixture) -> None:
    """A deliberately chosen level would be ignored, and unwanted lines fill the log."""
    bus = InMemoryEventBus()
    log_reports(bus, "shop", levels={telemetry.AttemptFailed: logging.DEBUG})
    bus.subscribe(Metered, _fail, name="charge", retry_count=0)
    with caplog.at_level(logging.INFO, "shop"):
        async with bus:
            await bus.publish(Metered("1"))
    assert [vars(record)["pabal_report"] for record in caplog.records] == ["EventParked"]


def _report_classes(base: type[telemetry.Report]) -> list[type[telemetry.Report]]:
    return [base, *(kind for subclass in base.__subclasses__() for kind in _report_classes(subclass))]


def test_every_report_severity_has_a_logging_level() -> None:
    """A report would raise inside the listener, which is then removed."""
    assert {kind.severity for kind in _report_classes(telemetry.Report)} == set(LEVELS)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("api_key: abc123 rest", "api_key: *** rest"),
        ("Authorization: Bearer abc.def.ghi", "Authorization: ***"),
        ('{"client_secret": "a b"}', '{"client_secret": ***}'),
        ("sent Bearer abcdefghij", "sent Bearer ***"),
        ("AWS_SECRET_ACCESS_KEY=abc123", "AWS_SECRET_ACCESS_KEY=***"),
        ("secretKey=abc, private_key: abc", "secretKey=***, private_key: ***"),
        ("host=db pwd=abc passphrase=abc", "host=db pwd=*** passphrase=***"),
        (r'{"password": "a\"b"}', '{"password": ***}'),
        ("postgresql://kim:p@ss@db/x", "postgresql://kim:***@db/x"),
        ("key=EURUSD monkey=1", "key=EURUSD monkey=1"),
        ("nothing to hide, order o-1", "nothing to hide, order o-1"),
    ],
)
def test_mask_secrets_hides_secrets_and_keeps_other_text(text: str, masked: str) -> None:
    """A token in an error message would be in log files."""
    assert mask_secrets(text) == masked


# -- Prometheus ---------------------------------------------------------------------------------------------


async def test_metrics_served_on_their_own_port_match_the_bus() -> None:
    """A scrape would show other figures than the bus has."""
    bus = InMemoryEventBus()
    bus.subscribe(Metered, _fail, name="charge", retry_count=0)
    exporter = PrometheusExporter()
    exporter.watch(bus, name="shop")
    async with bus:
        await bus.publish(Metered("1"))
        await bus.drain()
        port, end = await exporter.serve(port=0)
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        finally:
            await asyncio.to_thread(end)
    assert 'pabal_bus_responsive{bus="shop"} 1.0' in text
    assert 'pabal_events_published_total{bus="shop"} 1.0' in text
    assert 'pabal_deliveries_parked_total{bus="shop",subscription="charge"} 1.0' in text
    assert 'pabal_dead_letters{bus="shop"} 1.0' in text


async def test_a_scrape_reports_a_blocked_event_loop_as_not_responsive() -> None:
    """When metrics are needed most, the scrape would hang."""
    exporter = PrometheusExporter(timeout=0.05)
    bus = InMemoryEventBus()
    exporter.watch(bus, name="shop")
    port, end = await exporter.serve(port=0)
    async with bus:
        # A synchronous call blocks the loop: nothing else runs on it until the response arrives.
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=30).text  # noqa: ASYNC210
    await asyncio.to_thread(end)
    assert 'pabal_bus_responsive{bus="shop"} 0.0' in text
    assert "pabal_bus_running{" not in text


async def test_metrics_can_be_mounted_in_a_web_application_that_runs_the_bus(tmp_path: Path) -> None:
    """Services would have to implement start, stop and the endpoint themselves."""
    bus = EventBusFactory.create_default_event_bus(tmp_path / "shop.db")
    exporter = PrometheusExporter()
    exporter.watch(bus)
    app = Starlette(lifespan=bus_lifespan(bus))
    app.mount("/metrics", exporter.asgi())
    async with app.router.lifespan_context(app):
        assert app.state.bus is bus
        assert bus.is_running
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            answer = await client.get("/metrics/")
    assert 'pabal_bus_running{bus="default"} 1.0' in answer.text
    assert not bus.is_running


def test_watching_two_buses_under_one_name_raises() -> None:
    """The figures of one bus would replace those of the other."""
    exporter = PrometheusExporter()
    exporter.watch(InMemoryEventBus())
    with pytest.raises(UsageError, match="another name"):
        exporter.watch(InMemoryEventBus())


@pytest.mark.parametrize("page", ["observability.md", "observability.ko.md"])
def test_the_documentation_lists_exactly_the_existing_metrics(page: str) -> None:
    """Users would build an alert on a metric that does not exist."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    listed = set(re.findall(r"^\| `(pabal_\w+)`", text, re.MULTILINE))
    measures = (*prometheus.BUS_METRICS, *prometheus.SUBSCRIPTION_METRICS)
    assert listed == {measure.name for measure in measures} | {
        prometheus.RESPONSIVE,
        prometheus.DURATION,
    }


async def test_durations_are_measured_when_requested() -> None:
    """The latency of the slowest attempts would stay unknown."""
    bus = InMemoryEventBus()
    exporter = PrometheusExporter()
    exporter.watch(bus, name="shop", durations=True)

    async def fine(event: Metered) -> None: ...

    bus.subscribe(Metered, _fail, name="charge", retry_count=0)
    bus.subscribe(Metered, fine, name="note")
    async with bus:
        await bus.publish(Metered("1"))
    counts = re.findall(r"pabal_attempt_duration_seconds_count{(.*?)} (\S+)", exporter.text())
    assert sorted(counts) == [
        ('bus="shop",outcome="failed",subscription="charge"', "1.0"),
        ('bus="shop",outcome="handled",subscription="note"', "1.0"),
    ]


async def test_one_exporter_measures_the_durations_of_two_buses() -> None:
    """The second bus could not be measured, because a metric with this name is already registered."""
    exporter = PrometheusExporter()

    async def fine(event: Metered) -> None: ...

    for name in ("shop", "store"):
        bus = InMemoryEventBus()
        exporter.watch(bus, name=name, durations=True)
        bus.subscribe(Metered, fine, name="note")
        async with bus:
            await bus.publish(Metered("1"))
    counts = re.findall(r"pabal_attempt_duration_seconds_count{bus=\"(\w+)\".*?} (\S+)", exporter.text())
    assert sorted(counts) == [("shop", "1.0"), ("store", "1.0")]


def test_a_statistic_that_is_not_a_number_is_omitted_from_the_metrics() -> None:
    """The whole scrape would fail: on Redis, each partition has its own watermark."""

    class OnRedis(InMemoryEventBus):
        def get_statistics(self) -> dict[str, Any]:
            figures = super().get_statistics()
            figures["events_lost"] = 3
            for of_one in figures["subscriptions"].values():
                of_one["watermark"] = {0: 5, 1: 7}
            return figures

    bus = OnRedis()
    bus.subscribe(Metered, _fail, name="charge")
    exporter = PrometheusExporter()
    exporter.watch(bus)
    text = exporter.text()
    assert "pabal_subscription_watermark{" not in text
    assert 'pabal_events_lost_total{bus="default"} 3.0' in text


async def test_a_failing_listener_is_removed_and_affects_no_delivery(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A broken monitoring set-up would stop orders."""
    bus = InMemoryEventBus()
    reports: list[telemetry.Report] = []

    def broken(report: telemetry.Report) -> None:
        raise OSError("the collector is away")

    bus.listen(broken)
    bus.listen(reports.append)
    bus.subscribe(Metered, _fail, name="charge", retry_count=0)
    async with bus:
        await bus.publish(Metered("1"))
        await bus.publish(Metered("2"))
    assert [type(report).__name__ for report in reports] == ["AttemptFailed", "EventParked"] * 2
    assert caplog.text.count("a telemetry listener failed and was removed") == 1


# -- OpenTelemetry ------------------------------------------------------------------------------------------


def _recording() -> tuple[TracerProvider, InMemorySpanExporter]:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider, spans


def _span(spans: InMemorySpanExporter, prefix: str) -> ReadableSpan:
    (found,) = [span for span in spans.get_finished_spans() if span.name.startswith(prefix)]
    return found


async def test_a_trace_continues_after_a_restart(tmp_path: Path) -> None:
    """The attempt that finally failed would belong to no request."""
    provider, spans = _recording()
    tracer = provider.get_tracer("test")
    first = EventBusFactory.create_default_event_bus(tmp_path / "log.db")
    instrument(first, tracer=tracer)
    async with first:
        first.subscribe(Metered, _fail, name="charge", retry=RetryPolicy(base_delay=3600, max_delay=3600))
        await first.drain(retries=False)
        await first.publish(Metered("1"))
        await first.drain(retries=False)
    second = EventBusFactory.create_default_event_bus(tmp_path / "log.db")
    instrument(second, tracer=tracer)

    async def look(event: Metered) -> None: ...

    second.subscribe(Metered, look, name="later", start="beginning")
    async with second:
        await second.drain()
    publish = _span(spans, "publish")
    assert publish.context is not None
    attempts = [span for span in spans.get_finished_spans() if span.name.startswith("process")]
    assert len(attempts) == 2
    for attempt in attempts:
        assert attempt.parent is not None
        assert attempt.parent.span_id == publish.context.span_id
    failed = next(span for span in attempts if not span.status.is_ok and span.attributes)
    assert dict(failed.attributes or {})["error.type"] == "ConnectionError"
    assert "hunter2" not in failed.to_json()


async def test_old_events_and_batches_start_new_traces_linked_to_the_publish() -> None:
    """A replay would extend last week's traces, which no backend shows any more."""
    provider, spans = _recording()
    bus = InMemoryEventBus()
    instrument(bus, tracer=provider.get_tracer("test"), link_after=-1.0)

    async def one(event: Metered) -> None: ...
    async def many(events: list[Metered]) -> None: ...

    bus.subscribe(Metered, one, name="one")
    bus.subscribe(Metered, many, name="many", batch=10)
    async with bus:
        await bus.publish_batch([Metered("1")])
        await asyncio.wrap_future(bus.publish_threadsafe(Metered("2")))
    attempts = [span for span in spans.get_finished_spans() if span.name.startswith("process")]
    publishes = [span for span in spans.get_finished_spans() if span.name.startswith("publish")]
    published = {span.context.span_id for span in publishes if span.context is not None}
    assert len(published) == 2
    assert all(span.parent is None for span in attempts)
    assert {link.context.span_id for span in attempts for link in span.links} == published


@dataclass(frozen=True)
class Swiped:
    """Not a DomainEvent, so that it has no metadata for a trace in a batch."""

    card: str


register_event(Swiped, event_type="telemetry.swiped")


async def test_a_batch_is_one_span_with_its_event_count_for_any_event_class() -> None:
    """An event without metadata would fail its whole batch in the tracing, not in the handler."""
    provider, spans = _recording()
    bus = InMemoryEventBus()
    instrument(bus, tracer=provider.get_tracer("test"))
    seen: list[Any] = []

    async def many(events: list[Any]) -> None:
        seen.extend(events)

    bus.subscribe((Metered, Swiped), many, name="many", batch=10)
    async with bus:
        await bus.publish_batch([Metered("1"), Swiped("2")])
    assert len(seen) == 2
    publish, process = _span(spans, "publish"), _span(spans, "process")
    assert dict(publish.attributes or {})["messaging.batch.message_count"] == 2
    assert dict(process.attributes or {})["messaging.batch.message_count"] == 2
    assert publish.context is not None
    assert [link.context.span_id for link in process.links] == [publish.context.span_id]


def test_instrumenting_a_bus_twice_raises() -> None:
    """Every span would be recorded twice."""
    bus = InMemoryEventBus()
    instrument(bus)
    with pytest.raises(UsageError, match="already"):
        instrument(bus)


async def test_a_chain_of_events_is_one_trace() -> None:
    """The consequences of an order would have to be searched for by hand."""
    provider, spans = _recording()
    bus = InMemoryEventBus()
    instrument(bus, tracer=provider.get_tracer("test"))

    async def settle(event: Metered) -> None:
        if event.card == "first":
            await bus.publish(Metered("second"))

    bus.subscribe(Metered, settle, name="settle")
    with provider.get_tracer("web").start_as_current_span("request"):
        async with bus:
            await bus.publish(Metered("first"))
    finished = spans.get_finished_spans()
    assert len(finished) == 5
    assert len({span.context.trace_id for span in finished if span.context is not None}) == 1


def test_with_trace_adds_the_current_trace_to_an_event() -> None:
    """Events stored by ``tx.store_event`` would be in no trace."""
    provider, _ = _recording()
    with provider.get_tracer("web").start_as_current_span("request") as span:
        event = with_trace(Metered("1", metadata={"desk": "seoul"}))
    assert event.metadata["desk"] == "seoul"
    assert f"{span.get_span_context().span_id:016x}" in event.metadata["traceparent"]
