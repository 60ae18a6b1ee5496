"""Data sets with a deterministic split and order."""
