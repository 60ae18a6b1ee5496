"""What a rank can tell about itself without the others."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping

import torch

from hpc_lpm.campaign.doctor.cores import allowed_cores, core_quota, launcher_cores, slurm_cores
from hpc_lpm.campaign.doctor.probing.gpu_sight import look_at_gpus
from hpc_lpm.campaign.doctor.reports import RankReport, Software
from hpc_lpm.ranks import local_rank_from_environment

AGREED = ("hpc-lpm", "torch", "deepspeed", "mpi4py")
"""Packages that must be of one version on all ranks."""


def describe_this_rank(environment: Mapping[str, str] = os.environ) -> RankReport:
    """Return the report of this process."""
    gpu = look_at_gpus()
    return RankReport(
        pid=os.getpid(),
        host=platform.node(),
        cores=allowed_cores(),
        launcher_cores=launcher_cores(),
        core_quota=core_quota(),
        slurm_cores=slurm_cores(environment),
        threads=torch.get_num_threads(),
        omp_num_threads=environment.get("OMP_NUM_THREADS"),
        gpu=gpu,
        gpu_number=local_rank_from_environment() % max(1, len(gpu.gpus)),
        software=describe_software(),
    )


def describe_software() -> Software:
    """Return which Python this is and the versions of the packages in `AGREED`."""
    versions = {"Python": platform.python_version()}
    for package in AGREED:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return Software(executable=sys.executable, versions=versions)
