"""The hardware and software on which a rank runs."""

import importlib.metadata
import os
import platform

import torch

from hpc_lpm.engine.strategies.registry import STRATEGIES
from hpc_lpm.processor import processor_name
from hpc_lpm.ranks import local_rank_from_environment
from hpc_lpm.same_program import LIBRARIES


def run_environment() -> dict[str, object]:
    """Return versions, processor and threads, without host names or paths."""
    optional = [strategy.package for _, strategy in STRATEGIES.items() if strategy.package]
    packages = dict.fromkeys([*LIBRARIES, *optional])
    return {
        "packages": {name: version for name in packages if (version := _version(name))},
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads_a_rank": torch.get_num_threads(),
    }


def own_device() -> torch.device:
    """Return the GPU of this rank, which becomes the current one, or the CPU if there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank_from_environment() % torch.cuda.device_count())
    # Events and streams that name no device belong to the current one.
    torch.cuda.set_device(device)
    return device


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
