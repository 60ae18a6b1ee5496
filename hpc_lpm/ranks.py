"""This process's rank in its job, found without starting MPI."""

import os

_STEP_SIZE = "SLURM_STEP_NUM_TASKS"


def rank_from_environment() -> int:
    """Return the rank that mpirun (Open MPI) or srun gave this process, 0 outside a job."""
    return _first_integer("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", default=0)


def ranks_from_environment() -> int:
    """Return how many ranks the job has, 1 outside a job.

    Under srun this is the size of the step. The size of the allocation would not do: a batch script
    sees it too, although it is not a rank.
    """
    if "PMIX_RANK" in os.environ:
        return _first_integer("OMPI_COMM_WORLD_SIZE", _STEP_SIZE, default=1)
    return _first_integer("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", default=1)


def started_by_launcher() -> bool:
    """Tell if mpirun or srun started this process, even as the only rank."""
    return any(name in os.environ for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"))


def local_rank_from_environment() -> int:
    """Return this process's number among the ranks on its node, 0 outside a job."""
    return _first_integer("OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", default=0)


def _first_integer(*names: str, default: int) -> int:
    for name in names:
        value = os.environ.get(name, "")
        if value.isdigit():
            return int(value)
    return default
