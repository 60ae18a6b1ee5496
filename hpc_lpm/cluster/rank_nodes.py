"""Where the ranks of a command run: the Slurm job, if any, and the hardware of its nodes."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpc_lpm.cluster.launchers import rank_command
from hpc_lpm.cluster.machine import Machine, describe_machine, machines_in
from hpc_lpm.cluster.slurm import SlurmJob, describe_job
from hpc_lpm.host_names import host_names
from hpc_lpm.programs import ask

MACHINE_MODULE = "hpc_lpm.cluster.machine"
HOST_OPTIONS = frozenset({"--host", "-host", "-H", "--hostfile", "-hostfile", "--machinefile"})
"""Options of mpirun that send ranks to other nodes without a scheduler."""
PROBE_SECONDS = 60.0


@dataclass(frozen=True)
class RankNodes:
    """The Slurm job, if any, the names of the nodes, and the hardware of those that answered."""

    slurm: SlurmJob | None
    nodes: tuple[str, ...]
    machines: tuple[Machine, ...]

    @property
    def job_id(self) -> str | None:
        """Id of the Slurm job."""
        return self.slurm.job_id if self.slurm else None


def find_rank_nodes(
    ranks: int,
    mpi: str,
    options: Sequence[str] | None,
    environment: Mapping[str, str] = os.environ,
) -> RankNodes:
    """Return where `ranks` ranks started by the launcher `mpi` with `options` run.

    If they may be on several nodes, a probe asks each node through that launcher, just as training
    will be started; otherwise this node is the only one.

    Raises:
        InputError: if the launcher is unknown or not installed.
    """
    job = describe_job(environment)
    listed = host_names(job.node_list) if job and job.node_list else []
    machines: list[Machine] = []
    if ranks > 1 and (len(listed) > 1 or HOST_OPTIONS & set(options or ())):
        # The command that starts training, but with the probe in place of the toolkit's command.
        command = rank_command([], ranks, mpi, options, environment)
        start = command[: command.index(sys.executable)]
        probe = [*start, sys.executable, "-m", MACHINE_MODULE]
        answer = ask(probe, environment=environment, seconds=PROBE_SECONDS)
        machines = machines_in(answer.output)
    machines = machines or [describe_machine()]
    names = [machine.host for machine in machines]
    # Slurm knows the nodes even where they did not answer.
    return RankNodes(job, tuple(names if len(names) > 1 else listed or names), tuple(machines))
