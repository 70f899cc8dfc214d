"""What watches a bus from outside: logging, Prometheus metrics, OpenTelemetry traces."""
