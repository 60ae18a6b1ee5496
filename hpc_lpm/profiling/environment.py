"""Facts about the machine and the software that a profile's numbers depend on."""

import os
import platform
from pathlib import Path

import torch


def describe_environment(device: torch.device | str, threads: int) -> dict[str, object]:
    """Return what the times depend on; no host name, so that profiles can be published."""
    where = torch.device(device)
    facts: dict[str, object] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": threads,
    }
    if where.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(where)
        facts["cuda"] = torch.version.cuda
    return facts


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
