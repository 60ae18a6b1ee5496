"""The processor of this machine by its name."""

import platform
from pathlib import Path


def processor_name() -> str:
    """Return the name that the kernel gives the processor, or its architecture without one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
