"""A process learns its rank from whatever started it, or is told that two sources disagree."""

from types import SimpleNamespace

import pytest

from hpc_lpm import ranks
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.ranks import (
    agreed_claim,
    local_rank_from_environment,
    local_ranks_from_environment,
)

MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    **{"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
}
STEP = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3", "SLURM_LOCALID": "1"}
PMIX = {**STEP, "PMIX_RANK": "2"}
PMI = {**STEP, "PMI_RANK": "2", "PMI_SIZE": "3"}
DAEMON = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
ALONE = {**MPIRUN, "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        (MPIRUN, (1, 4, True)),
        (TORCHRUN, (3, 8, False)),
        (STEP, (2, 3, False)),
        (PMIX, (2, 3, True)),
        (PMI, (2, 3, True)),
        # mpirun starts one daemon per node with srun, whose variables its ranks inherit.
        ({**DAEMON, **MPIRUN}, (1, 4, True)),
        # srun starts a torchrun per node; so may mpirun -n 1.
        ({**STEP, **TORCHRUN}, (3, 8, False)),
        ({**PMIX, **TORCHRUN}, (3, 8, False)),
        ({**ALONE, **TORCHRUN}, (3, 8, False)),
        # A batch script is a process of the allocation, which is larger, and no rank.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}, None),
        # A rank exports these for DeepSpeed; its children are no ranks.
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, None),
    ],
)
def test_the_innermost_launcher_tells_the_rank(
    environment: dict[str, str], found: tuple[int, int, bool] | None
) -> None:
    claim = agreed_claim(environment)
    assert found == (claim and (claim.rank, claim.size, claim.by_mpi))


@pytest.mark.parametrize(
    ("environment", "local_rank"),
    [({}, 0), (STEP, 1), ({**STEP, **MPIRUN}, 0), ({**STEP, **TORCHRUN, "LOCAL_RANK": "5"}, 5)],
)
def test_the_local_rank_is_the_same_launchers(environment: dict[str, str], local_rank: int) -> None:
    assert local_rank_from_environment(environment) == local_rank


def initialise(monkeypatch: pytest.MonkeyPatch, source: str, rank: int, size: int) -> None:
    """Stand in for a script that has initialised MPI or torch.distributed."""
    if source == "mpi4py":
        module = SimpleNamespace(
            Is_initialized=lambda: True,
            Is_finalized=lambda: False,
            COMM_WORLD=SimpleNamespace(rank=rank, size=size),
        )
    else:
        module = SimpleNamespace(
            is_initialized=lambda: True, get_rank=lambda: rank, get_world_size=lambda: size
        )
    name = {"mpi4py": "mpi4py.MPI", "torch.distributed": "torch.distributed"}[source]
    monkeypatch.setitem(ranks.sys.modules, name, module)


@pytest.mark.parametrize(
    ("environment", "source", "by_mpi"),
    [
        (MPIRUN, "mpi4py", True),
        (MPIRUN, "torch.distributed", True),
        ({}, "mpi4py", True),
        ({}, "torch.distributed", False),
        # The step's rank is that of a process which has started this one.
        ({**DAEMON, "SLURM_PROCID": "1"}, "torch.distributed", False),
        (ALONE, "torch.distributed", False),
    ],
)
def test_what_the_script_has_initialised_counts(
    environment: dict[str, str], source: str, by_mpi: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    initialise(monkeypatch, source, 1, 4)
    claim = agreed_claim(environment)
    assert claim is not None
    assert (claim.rank, claim.size, claim.by_mpi) == (1, 4, by_mpi)


@pytest.mark.parametrize(
    ("environment", "source", "named"),
    [
        ({**MPIRUN, **TORCHRUN}, None, "torchrun says .* 3 of 8, but mpirun says .* 1 of 4"),
        # Each of two torchruns under mpirun -n 2 starts two ranks.
        (
            {
                **{**MPIRUN, "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"},
                **{**TORCHRUN, "RANK": "0", "WORLD_SIZE": "2"},
            },
            None,
            "torchrun says .* 0 of 2, but mpirun says .* 0 of 2",
        ),
        (MPIRUN, "torch.distributed", "torch.distributed says .* 0 of 4, but mpirun says .* 1 of"),
        (TORCHRUN, "torch.distributed", "torchrun says .* 3 of 8, but torch.distributed says"),
    ],
)
def test_sources_that_disagree_are_both_named(
    environment: dict[str, str],
    source: str | None,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if source:
        initialise(monkeypatch, source, 0, 4)
    with pytest.raises(InputError, match=f"^{named}"):
        agreed_claim(environment)


def test_horovod_is_refused_to_ranks_without_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        InputError, match=r"horovod .* MPI, but the 8 ranks were started by torchrun"
    ):
        strategy_named("horovod").require_installed()


@pytest.mark.parametrize(
    ("environment", "here"),
    [
        ({}, 1),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "3", "SLURM_STEP_TASKS_PER_NODE": "9"}, 3),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "4"}, 4),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x3),12"}, 12),
    ],
)
def test_ranks_of_a_node_are_counted(environment: dict[str, str], here: int) -> None:
    assert local_ranks_from_environment(environment) == here
