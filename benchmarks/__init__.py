"""Benchmarks, each of which answers one question: run them as `python -m benchmarks.NAME`."""
