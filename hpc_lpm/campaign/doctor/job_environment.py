"""The environment of launchers, started from within a process that a launcher may have started."""

from collections.abc import Mapping

from hpc_lpm.cluster.allocation import with_allocation

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
