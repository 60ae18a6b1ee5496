"""Ranks that one process plays: each has a thread, and they take turns."""
