"""The processor that this process runs on."""

import platform
from pathlib import Path


def processor_name() -> str:
    """Return the name of the processor's model, or the architecture if the kernel tells none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
