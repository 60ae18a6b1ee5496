"""This process's rank in its job, found without starting MPI or torch.

A process may be told its rank by several sources: the launcher's environment variables, MPI if the
script has initialised it, and torch.distributed likewise. `agreed_claim` makes sure that they tell
the same.
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from hpc_lpm.errors import InputError

MPIRUN, SRUN, SRUN_ALONE, TORCHRUN = "mpirun", "srun", "srun without MPI", "torchrun"
MPI4PY, TORCH_DISTRIBUTED = "mpi4py", "torch.distributed"

_STEP_SIZE = "SLURM_STEP_NUM_TASKS"


@dataclass(frozen=True)
class Claim:
    """What one source says: this process's rank and the number of ranks.

    `sharing` is how many ranks of this source may share one rank of a source around it: torchrun
    starts several processes where mpirun has started one.
    """

    source: str
    rank: int
    size: int
    sharing: int = 1

    @property
    def by_mpi(self) -> bool:
        """Whether the ranks find each other through MPI."""
        return self.source in {MPIRUN, SRUN, MPI4PY}

    def __str__(self) -> str:
        return f"{self.source} says that this is rank {self.rank} of {self.size}"


def claims(environment: Mapping[str, str] = os.environ) -> list[Claim]:
    """Return what each source says that has started, or joined, more than this process alone.

    The innermost come first. srun tells each torchrun or mpirun that it starts a rank, which is
    none of the processes that these start.
    """
    torchrun, launched = _torchrun(environment), _mpi_launcher(environment)
    found = [claim for claim in (torchrun, _mpi4py(), _torch_distributed()) if claim is not None]
    if launched is None:
        launched = None if found else _srun_alone(environment)
    elif found and (launched.size == 1 or (torchrun is not None and launched.source == SRUN)):
        # A single rank may start several processes that know each other in another way.
        launched = None
    return found if launched is None else [*found, launched]


def agreed_claim(environment: Mapping[str, str] = os.environ) -> Claim | None:
    """Return what all sources say alike, None outside a job; MPI's claim where there is one.

    Raises:
        InputError: if two sources tell different ranks or numbers of ranks.
    """
    found = claims(environment)
    for other in found[1:]:
        first = found[0]
        same = (other.rank, other.size) == (first.rank, first.size)
        if not same or (first.sharing > 1 and other.source == MPIRUN):
            raise InputError(
                f"{first}, but {other}: start the script with one launcher alone, and initialise "
                "torch.distributed or MPI with the rank that this launcher gives."
            )
    return next((claim for claim in found if claim.by_mpi), found[0] if found else None)


def rank_from_environment(environment: Mapping[str, str] = os.environ) -> int:
    """Return this process's rank, or that of one with another environment; 0 outside a job."""
    return next((claim.rank for claim in claims(environment)), 0)


def ranks_from_environment() -> int:
    """Return how many ranks the job has, 1 outside a job.

    Under srun this is the size of the step. The size of the allocation would not do: a batch script
    sees it too, although it is not a rank.
    """
    return next((claim.size for claim in claims()), 1)


def started_by_launcher() -> bool:
    """Tell if mpirun, srun or torchrun started this process, even as the only rank."""
    return any(claim.source not in {MPI4PY, TORCH_DISTRIBUTED} for claim in claims())


def started_by_mpi() -> bool:
    """Tell if the ranks of this job find each other through MPI."""
    found = claims()
    return bool(found) and found[0].source != TORCHRUN and any(claim.by_mpi for claim in found)


def spans_nodes(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell if the launcher has started ranks on other nodes than this one."""
    size, here = "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"
    if size in environment:
        return environment.get(here, environment[size]) != environment[size]
    return (_number(environment, "SLURM_STEP_NUM_NODES") or 1) > 1


def local_rank_from_environment(environment: Mapping[str, str] = os.environ) -> int:
    """Return this process's number among the ranks on its node, 0 outside a job."""
    names = ["OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "LOCAL_RANK"]
    if _torchrun(environment) is not None:
        names.reverse()
    return next((number for name in names if (number := _number(environment, name)) is not None), 0)


def local_ranks_from_environment(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many ranks of the job share this process's node, at most; 1 outside a job."""
    names = ["OMPI_COMM_WORLD_LOCAL_SIZE", "LOCAL_WORLD_SIZE"]
    if _torchrun(environment) is not None:
        names.reverse()
    for name in names:
        if (number := _number(environment, name)) is not None:
            return number
    # Of all nodes of the step, such as "2(x3),1".
    of_nodes = re.findall(r"(?:^|,)(\d+)", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    return max(map(int, of_nodes), default=1)


def _torchrun(environment: Mapping[str, str]) -> Claim | None:
    # RANK and WORLD_SIZE alone say nothing: we export them too, for DeepSpeed, and so may a parent.
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None
    sharing = _number(environment, "LOCAL_WORLD_SIZE")
    return _claim(environment, TORCHRUN, "RANK", "WORLD_SIZE", sharing or 1)


def _mpi_launcher(environment: Mapping[str, str]) -> Claim | None:
    launcher = SRUN if _STEP_SIZE in environment else MPIRUN
    if {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"} & environment.keys():
        # In a Slurm job mpirun starts its daemons with srun, whose variables the ranks inherit.
        return _claim(environment, MPIRUN, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
    if "PMIX_RANK" in environment:
        return _claim(environment, launcher, "PMIX_RANK", _STEP_SIZE)
    if {"PMI_RANK", "PMI_SIZE"} & environment.keys():
        return _claim(environment, launcher, "PMI_RANK", "PMI_SIZE")
    return None


def _srun_alone(environment: Mapping[str, str]) -> Claim | None:
    # In a batch script only SLURM_PROCID is there: it is not started by srun.
    if _STEP_SIZE not in environment or "SLURM_PROCID" not in environment:
        return None
    return _claim(environment, SRUN_ALONE, "SLURM_PROCID", _STEP_SIZE)


def _mpi4py() -> Claim | None:
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized():
        return None
    world = mpi.COMM_WORLD
    # A world of one is what MPI is where no launcher of MPI has started the process.
    return Claim(MPI4PY, world.rank, world.size) if world.size > 1 else None


def _torch_distributed() -> Claim | None:
    distributed = sys.modules.get("torch.distributed")
    # While torch is being imported, the module is there before its functions.
    initialised = getattr(distributed, "is_initialized", None)
    if distributed is None or initialised is None or not initialised():
        return None
    return Claim(TORCH_DISTRIBUTED, distributed.get_rank(), distributed.get_world_size())


def _claim(
    environment: Mapping[str, str], source: str, rank: str, size: str, sharing: int = 1
) -> Claim:
    numbers = _number(environment, rank), _number(environment, size)
    return Claim(source, numbers[0] or 0, numbers[1] or 1, sharing)


def _number(environment: Mapping[str, str], name: str) -> int | None:
    value = environment.get(name, "")
    return int(value) if value.isdigit() else None
