"""Profiles in their formats: JSON of our own, and the graphs of PipeDream's profiler."""
