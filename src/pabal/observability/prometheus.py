"""Prometheus metrics of buses (extra ``prometheus``), read when scraped, at no cost per event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from time import perf_counter
from typing import Any, Literal, NamedTuple

from pabal.bus.base import BaseEventBus
from pabal.delivery.context import DeliveryContext
from pabal.errors import MissingExtraError, UsageError
from pabal.observability.listening import resolve

try:
    from prometheus_client import (
        CollectorRegistry,
        Histogram,
        generate_latest,
        make_asgi_app,
        start_http_server,
    )
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
except ImportError as error:
    raise MissingExtraError(feature="PrometheusExporter", extra="prometheus") from error

__all__ = ["PrometheusExporter"]

Figures = dict[str, Any]


class Measure(NamedTuple):
    """Describe one metric: its name, kind, help text, and how to read its value from the statistics."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    value: Callable[[Figures], float | None]


def _figure(name: str) -> Callable[[Figures], float | None]:
    def read(figures: Figures) -> float | None:
        value = figures.get(name)
        # Absent on some buses: the watermark without a log, or on Redis, where each partition has its own.
        return float(value) if isinstance(value, (int, float)) else None

    return read


BUS_METRICS = (
    Measure("pabal_bus_running", "gauge", "1 while the bus is running", _figure("is_running")),
    Measure("pabal_bus_uptime_seconds", "gauge", "Seconds since the bus started", _figure("uptime_seconds")),
    Measure("pabal_workers", "gauge", "Running workers", _figure("worker_count")),
    Measure("pabal_events_published_total", "counter", "Events accepted", _figure("events_published")),
    Measure("pabal_events_scheduled", "gauge", "Delayed events kept in memory", _figure("events_scheduled")),
    Measure("pabal_queue_deliveries", "gauge", "Unfinished deliveries in memory", _figure("queue_size")),
    Measure("pabal_dead_letters", "gauge", "Current dead letters", _figure("failed_events_count")),
    Measure(
        "pabal_events_lost_total", "counter", "Events lost on the server unhandled", _figure("events_lost")
    ),
)
"""Metrics with the label ``bus``."""

SUBSCRIPTION_METRICS = (
    Measure("pabal_deliveries_handled_total", "counter", "Deliveries handled", _figure("handled")),
    Measure(
        "pabal_deliveries_filtered_total", "counter", "Deliveries rejected by where", _figure("filtered")
    ),
    Measure("pabal_deliveries_retried_total", "counter", "Deliveries to be retried", _figure("retried")),
    Measure(
        "pabal_deliveries_parked_total", "counter", "Deliveries that became dead letters", _figure("parked")
    ),
    Measure(
        "pabal_deliveries_dropped_total", "counter", "Deliveries dropped by a full bus", _figure("dropped")
    ),
    Measure(
        "pabal_deliveries_skipped_total",
        "counter",
        "Skipped events of unregistered types",
        _figure("skipped"),
    ),
    Measure("pabal_attempts_failed_total", "counter", "Attempts that failed", _figure("failed_attempts")),
    Measure("pabal_deliveries_in_flight", "gauge", "Handlers running now", _figure("in_flight")),
    Measure("pabal_deliveries_retrying", "gauge", "Failed deliveries, not finished", _figure("retrying")),
    Measure("pabal_blocked_keys", "gauge", "Keys blocked by a dead letter", _figure("blocked_keys")),
    Measure("pabal_subscription_lag", "gauge", "Unfinished positions or deliveries", _figure("lag")),
    Measure(
        "pabal_subscription_watermark", "gauge", "Position up to which all is finished", _figure("watermark")
    ),
    Measure(
        "pabal_subscription_active",
        "gauge",
        "1 while the subscription is active",
        lambda f: f["state"] == "active",
    ),
)
"""Metrics with the labels ``bus`` and ``subscription``."""

_RESPONSIVE_HELP = "1 if the event loop answered the scrape"
RESPONSIVE = "pabal_bus_responsive"
"""The gauge that is 0 if the event loop did not answer a scrape from another thread in time."""
DURATION = "pabal_attempt_duration_seconds"
"""The histogram for buses watched with ``durations``."""


class PrometheusExporter:
    """Expose the figures of buses to Prometheus; each bus has its own name, in the label ``bus``.

    The figures are those of ``get_statistics()``, read at each scrape. Mount ``asgi()`` in a web application
    that shares the bus's event loop, open a port with ``serve()``, or use ``text()``.

    ``registry`` is the ``CollectorRegistry`` of prometheus_client to register with; it defaults to a new one.
    ``timeout`` is how many seconds a scrape of ``serve`` waits for the event loop. Importing this module
    raises MissingExtraError without the extra ``prometheus``. Raises UsageError if the registry already has
    an exporter: one exporter can watch several buses.

    >>> from pabal import InMemoryEventBus
    >>> exporter = PrometheusExporter()
    >>> exporter.watch(InMemoryEventBus(), name="trading")
    >>> 'pabal_bus_running{bus="trading"} 0.0' in exporter.text()
    True
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, timeout: float = 2.0) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._timeout = timeout
        self._buses: dict[str, BaseEventBus] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._durations: Histogram | None = None
        try:
            self.registry.register(self)
        except ValueError as error:
            raise UsageError(
                "the registry already has an exporter; call its watch() for this bus too, "
                "or give this one another registry"
            ) from error

    def watch(self, bus: BaseEventBus, *, name: str = "default", durations: bool = False) -> None:
        """Expose a bus under ``name``; with ``durations``, also measure every attempt from now on.

        The bus may be started before or after. ``durations`` adds a middleware and the histogram
        ``pabal_attempt_duration_seconds``. Raises UsageError if the name is taken.
        """
        if name in self._buses:
            raise UsageError(f"a bus named {name!r} is watched already; give this one another name")
        self._buses[name] = bus
        if durations:
            self._add_duration_middleware(bus, name)

    def _add_duration_middleware(self, bus: BaseEventBus, name: str) -> None:
        if self._durations is None:
            labels = ["bus", "subscription", "outcome"]
            self._durations = Histogram(
                DURATION, "Duration of a handler attempt", labels, registry=self.registry
            )
        durations = self._durations

        async def measure_duration(
            event: Any, context: DeliveryContext, call_next: Callable[[], Awaitable[Any]]
        ) -> Any:
            started, outcome = perf_counter(), "failed"
            try:
                result = await call_next()
                outcome = "handled"
                return result
            finally:
                durations.labels(name, context.subscription, outcome).observe(perf_counter() - started)

        bus.use(measure_duration)

    def text(self) -> str:
        """Return all metrics in Prometheus's text format. Call it on the buses' event loop."""
        return generate_latest(self.registry).decode()

    def asgi(self) -> Any:
        """Return an ASGI application that serves the metrics, to be mounted under ``/metrics``."""
        return make_asgi_app(self.registry)

    async def serve(self, host: str = "127.0.0.1", port: int = 9464) -> tuple[int, Callable[[], None]]:
        """Serve metrics on a separate port; return the port (0 picks a free one) and a function to stop.

        Call it on the buses' event loop. The server runs in its own thread: if the loop is blocked for longer
        than ``timeout`` seconds, it still answers, with ``pabal_bus_responsive`` 0 and no other figure of a
        bus. Raises UsageError for an invalid host or port, OSError if the port is taken.
        """
        await asyncio.to_thread(resolve, host, port)
        self._loop = asyncio.get_running_loop()
        server, thread = start_http_server(port, host, registry=self.registry)

        def end() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return int(server.server_port), end

    def describe(self) -> list[Metric]:
        """Return every metric without values; the registry uses this to refuse a second exporter."""
        return [
            GaugeMetricFamily(RESPONSIVE, _RESPONSIVE_HELP, labels=["bus"]),
            *(_family(measure, ["bus"]) for measure in BUS_METRICS),
            *(_family(measure, ["bus", "subscription"]) for measure in SUBSCRIPTION_METRICS),
        ]

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its values; called by the registry at each scrape, from any thread."""
        figures = self._read()
        responsive = GaugeMetricFamily(RESPONSIVE, _RESPONSIVE_HELP, labels=["bus"])
        for name in self._buses:
            responsive.add_metric([name], float(name in figures))
        yield responsive
        for measure in BUS_METRICS:
            family = _family(measure, ["bus"])
            for name, bus_figures in figures.items():
                value = measure.value(bus_figures)
                if value is not None:
                    family.add_metric([name], value)
            yield family
        for measure in SUBSCRIPTION_METRICS:
            family = _family(measure, ["bus", "subscription"])
            for name, bus_figures in figures.items():
                for subscription, subscription_figures in bus_figures["subscriptions"].items():
                    value = measure.value(subscription_figures)
                    if value is not None:
                        family.add_metric([name, subscription], value)
            yield family

    def _read(self) -> dict[str, Figures]:
        """Read the statistics on the loop that changes them; return none if it does not answer in time."""
        loop = self._loop
        if loop is None or not loop.is_running() or loop is _running_loop():
            return self._read_statistics()

        # Not a task: a closing loop cancels its tasks, and a scrape at that moment should be answered too.
        answer: Future[dict[str, Figures]] = Future()

        def read() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(self._read_statistics())
                except BaseException as error:
                    answer.set_exception(error)

        try:
            loop.call_soon_threadsafe(read)
        except RuntimeError:  # closed meanwhile
            return self._read_statistics()
        try:
            return answer.result(self._timeout)
        except TimeoutError:
            answer.cancel()
            return {} if loop.is_running() else self._read_statistics()

    def _read_statistics(self) -> dict[str, Figures]:
        return {name: bus.get_statistics() for name, bus in self._buses.items()}


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _family(measure: Measure, labels: list[str]) -> Any:
    make = CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily
    return make(measure.name, measure.help, labels=labels)
