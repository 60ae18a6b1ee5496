"""Comparisons that answer one question each, run as `python -m benchmarks.NAME`."""
