"""Benchmarks of pabal and comparable libraries: `python -m benchmarks --help`."""
