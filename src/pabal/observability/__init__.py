"""Observe a bus: logging, Prometheus metrics, OpenTelemetry traces.

``logging.log_reports(bus)`` logs failures and other unusual events on a bus,
``prometheus.PrometheusExporter`` exposes its figures for scraping, and ``opentelemetry.instrument(bus)``
creates a span for each publish and each attempt.
"""
