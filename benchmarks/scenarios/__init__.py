"""One file per question the benchmarks answer."""
