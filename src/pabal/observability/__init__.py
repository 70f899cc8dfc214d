"""What watches a bus from outside: logging, Prometheus metrics, OpenTelemetry traces.

``logging.log_reports(bus)`` writes what leaves the ordinary way to a log, ``prometheus.PrometheusExporter``
shows figures when scraped, ``opentelemetry.instrument(bus)`` makes a span of each publish and each attempt.
"""
