"""Checkpoints: what is saved at a drain, how it gets onto the disk and back."""
