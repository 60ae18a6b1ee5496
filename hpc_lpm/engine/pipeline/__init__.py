"""Merged stages on ranks, on top of DeepSpeed's pipeline module and engine."""
