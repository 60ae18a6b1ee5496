"""The Slurm allocation that this process runs in; Snakemake's jobs keep but its number."""

from collections.abc import Mapping

from hpc_lpm.errors import InputError

KEPT_PREFIX = "HPC_LPM_"
"""`slurm/job.sh` keeps each variable SLURM_X of a job as HPC_LPM_SLURM_X."""


def with_allocation(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the variables by which launchers know their nodes.

    Snakemake's executor takes most SLURM_ variables from what a job starts, and mpirun would then
    start every rank on the first node.
    """
    complete = dict(environment)
    job = environment.get("SLURM_JOB_ID")
    if job and environment.get(f"{KEPT_PREFIX}SLURM_JOB_ID") == job:
        for name, value in environment.items():
            if name.startswith(f"{KEPT_PREFIX}SLURM_"):
                complete.setdefault(name.removeprefix(KEPT_PREFIX), value)
    return complete


def check_allocation(environment: Mapping[str, str], ranks: int) -> None:
    """Check that a launcher of several ranks can know its nodes.

    Raises:
        InputError: in a Slurm job whose list of nodes is lost.
    """
    job = environment.get("SLURM_JOB_ID")
    if ranks > 1 and job and "SLURM_JOB_NODELIST" not in environment:
        raise InputError(
            f"Slurm job {job} has no SLURM_JOB_NODELIST, so that its {ranks} ranks would all start "
            "on one node: use the profile slurm/, whose precommand keeps it, or add `precommand: "
            "'. slurm/job.sh'` to your own."
        )


def in_allocation(environment: Mapping[str, str]) -> bool:
    """Tell if launchers find a Slurm allocation."""
    return "SLURM_JOB_ID" in environment and "SLURM_JOB_NODELIST" in environment
