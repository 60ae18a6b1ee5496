"""How much memory this process may still take without being killed for it."""

from pathlib import Path

import psutil

from hpc_lpm.control_groups import CONTROL_GROUPS, PROC, control_groups

_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""The limit and the use of a group, in versions 2 and 1 of control groups."""


def free_memory_bytes(proc: Path = PROC, cgroups: Path = CONTROL_GROUPS) -> int:
    """Return what is free on this machine, or in the tightest control group of this process."""
    left = [_left_bytes(group) for group in control_groups("memory", proc, cgroups)]
    return min([psutil.virtual_memory().available, *(each for each in left if each is not None)])


def _left_bytes(group: Path) -> int | None:
    """Return what a group may still take, None if it has no limit."""
    for limit, use in _FILES:
        try:
            left = int((group / limit).read_text("utf-8")) - int((group / use).read_text("utf-8"))
            return max(0, left + _cached_bytes(group / "memory.stat"))
        except (OSError, ValueError, KeyError):  # a file is missing or says `max`
            continue
    return None


def _cached_bytes(statistics: Path) -> int:
    """Return the memory of cached files, which the kernel gives back before it kills anybody."""
    lines = statistics.read_text(encoding="utf-8").splitlines()
    entries = dict(line.split(maxsplit=1) for line in lines)
    # Version 1 counts a group without those within it too, under the plain names.
    prefix = "total_" if "total_inactive_file" in entries else ""
    return sum(int(entries[f"{prefix}{name}"]) for name in ("active_file", "inactive_file"))
