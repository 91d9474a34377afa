"""Benchmarks that `scripts/bench NAME` runs; each prints ratios of one run."""
