"""Getting the ranks to look at: those of the job at hand, or ones started for the purpose."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from hpc_lpm.cluster.allocation import with_allocation
from hpc_lpm.cluster.launchers import rank_command, rank_environment
from hpc_lpm.doctor.probe import PROBE_SECONDS, probe_world, reports_in
from hpc_lpm.doctor.situation import Situation, allocation_of_slurm
from hpc_lpm.errors import InputError
from hpc_lpm.programs import ask
from hpc_lpm.ranks import rank_from_environment, ranks_from_environment

PROBE_MODULE = "hpc_lpm.doctor.probe"
START_SECONDS, SECONDS_A_RANK = 60.0, 10.0
"""How long ranks may take to start, on a machine that is busy or short of cores."""

DEFAULT_RANKS = 2


def in_job(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell if a launcher started this process; it must not start ranks of its own then."""
    return "OMPI_COMM_WORLD_SIZE" in environment or ranks_of_this_job(environment) > 1


def ranks_of_this_job(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many processes mpirun or srun started together with this one, 1 outside a job.

    srun tells a step's size even where its processes do not find each other through MPI.
    """
    if "OMPI_COMM_WORLD_SIZE" in environment:
        # mpirun's own processes are a step of Slurm, one a node; their ranks inherit its variables.
        return ranks_from_environment()
    step = environment.get("SLURM_STEP_NUM_TASKS", "")
    return max(ranks_from_environment(), int(step) if step.isdigit() else 1)


def ranks_to_start(environment: Mapping[str, str] = os.environ) -> int:
    """Return one rank a task that Slurm allotted, so that all nodes are seen, or a default."""
    allocation = allocation_of_slurm(environment)
    return DEFAULT_RANKS if allocation is None else allocation.tasks


def is_first_of_this_job(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell if this process, of those started together, is the one that speaks."""
    if ranks_from_environment() > 1:
        return rank_from_environment() == 0
    return ranks_of_this_job(environment) == 1 or environment.get("SLURM_PROCID", "0") == "0"


def look_at_this_job(asked: int | None) -> Situation:
    """Return the situation of the job that this process is in; all its ranks must call this."""
    started = ranks_of_this_job()
    return Situation(
        ranks_asked=started if asked is None else asked,
        processes=started,
        jobs=(probe_world(),),
        folder=Path.cwd(),
        allocation=allocation_of_slurm(),
        launcher="mpirun" if "OMPI_COMM_WORLD_SIZE" in os.environ else "the launcher of this job",
    )


def start_ranks(asked: int) -> Situation:
    """Start that many ranks as a campaign would, and return what they report.

    In a job of Slurm, mpirun finds its nodes and starts the ranks there.
    """
    folder = Path.cwd()
    allocation = allocation_of_slurm()
    environment = dict(os.environ)
    if allocation is not None:
        environment = outside_of_steps(environment, allocation.nodes)
    try:
        # As a run is started, with the probe in the place of the toolkit's command line.
        *start, _toolkit = rank_command([], asked, "mpirun", environment=environment)
    except InputError as error:
        return Situation(asked, 0, (), folder, problem=str(error), allocation=allocation)
    seconds = START_SECONDS + SECONDS_A_RANK * asked + PROBE_SECONDS
    answer = ask(
        [*start, PROBE_MODULE],
        environment=rank_environment(environment, threads=1),
        seconds=seconds,
    )
    jobs = reports_in(answer.output)
    if answer.exit_code is None:
        problem = f"the ranks had not reported {seconds:.0f} s after their start"
    else:
        problem = "" if answer.done else answer.complaint()
    launcher = "mpirun" if asked > 1 else Path(sys.executable).name
    return Situation(asked, asked, jobs, folder, launcher, problem, allocation)


_OF_A_RANK = ("OMPI_", "PMIX_", "PMI_", "PRTE_")
_SETTING = "_MCA_"


def outside_of_ranks(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what tells a process that it is a rank.

    New ranks would take themselves for that one. What users set Open MPI up with
    (`OMPI_MCA_...`) and the leave for root stay.
    """
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_OF_A_RANK) or _SETTING in name or name.startswith("OMPI_ALLOW_")
    }


def outside_of_steps(environment: Mapping[str, str], nodes: int) -> dict[str, str]:
    """Return the environment in which mpirun finds all nodes of the Slurm job that this is in.

    A process of a step, such as a shell started by `srun --pty`, is told of the step's tasks beside
    the job's nodes: mpirun takes that for the job, and fails. How many tasks the job has is lost
    there; it gets one a node.
    """
    whole = with_allocation(outside_of_ranks(environment))
    if environment.get("SLURM_STEP_NODELIST"):
        whole |= {
            "SLURM_NNODES": str(nodes),
            "SLURM_NTASKS": str(nodes),
            "SLURM_NPROCS": str(nodes),
            "SLURM_TASKS_PER_NODE": f"1(x{nodes})",
        }
    # mpirun reaches other nodes by srun, which from within a step waits for that step's end.
    return whole | {"SLURM_OVERLAP": "1"}
