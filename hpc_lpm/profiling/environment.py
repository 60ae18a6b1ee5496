"""Facts about the machine and the software that a profile's numbers depend on."""

import os
import platform

import torch

from hpc_lpm.processor import processor_name


def describe_environment(device: torch.device | str, threads: int) -> dict[str, object]:
    """Return what the times depend on; no host name, so that profiles can be published."""
    where = torch.device(device)
    facts: dict[str, object] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "threads": threads,
    }
    if where.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(where)
        facts["cuda"] = torch.version.cuda
    return facts
