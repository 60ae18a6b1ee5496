"""Checks of the machine: one file a check, all listed in `registry.CHECKS`."""
