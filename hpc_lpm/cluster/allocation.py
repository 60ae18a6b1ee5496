"""The Slurm allocation that this process runs in, as `slurm/job.sh` hands it on.

Snakemake's executor starts the steps of a job without most of the job's variables and without the
signals that Slurm sends to the job's script. `slurm/job.sh` keeps the variables under other names
and passes the signals on to whoever asks for them.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hpc_lpm.errors import InputError

KEPT_PREFIX = "HPC_LPM_"
"""`slurm/job.sh` keeps each variable SLURM_X of a job as HPC_LPM_SLURM_X."""

FOLDER_VARIABLE = "HPC_LPM_SIGNALLED"
"""Names the folder in which a process that wants the script's signals leaves its process id."""


def with_allocation(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the variables by which launchers know their nodes.

    Without them, mpirun would start every rank on the first node of the job.
    """
    complete = dict(environment)
    job = environment.get("SLURM_JOB_ID")
    if job and environment.get(f"{KEPT_PREFIX}SLURM_JOB_ID") == job:
        for name, value in environment.items():
            if name.startswith(f"{KEPT_PREFIX}SLURM_"):
                complete.setdefault(name.removeprefix(KEPT_PREFIX), value)
    return complete


def check_allocation(environment: Mapping[str, str], ranks: int) -> None:
    """Check that the launcher of several ranks can find the nodes of its job.

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


@contextmanager
def signals_of_job_script(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Have the signals of the job's script sent to this process, too, while the block runs."""
    named = environment.get(FOLDER_VARIABLE)
    # Without a name, as where no folder could be made, it would be the current one.
    if not named or not (folder := Path(named)).is_dir():
        yield
        return
    entry = folder / str(os.getpid())
    entry.touch()
    try:
        yield
    finally:
        entry.unlink(missing_ok=True)
