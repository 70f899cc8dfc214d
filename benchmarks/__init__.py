"""Benchmarks of pabal beside its peers: `python -m benchmarks --help`."""
