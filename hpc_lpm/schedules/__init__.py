"""Schedules: which stage does what in which order. Plain Python without torch."""
