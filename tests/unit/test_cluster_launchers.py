import sys

import pytest

from hpc_lpm.cluster.launchers import THREAD_VARIABLES, rank_command, rank_environment
from hpc_lpm.errors import InputError


def test_one_rank_needs_no_launcher() -> None:
    assert rank_command(["models"], 1, "mpirun") == [sys.executable, "-m", "hpc_lpm", "models"]


def test_ranks_run_under_mpi4py_unbound_and_yielding() -> None:
    command = rank_command(["train", "--out", "a b"], 2, "srun", ["--mpi=pmix"])
    program = [sys.executable, "-m", "mpi4py", "-m", "hpc_lpm", "train", "--out", "a b"]
    assert command == ["srun", "-n", "2", "--mpi=pmix", *program]
    mpirun = rank_command(["models"], 3, "mpirun")
    assert mpirun[0].endswith("/mpirun")
    assert mpirun[1:3] == ["-n", "3"]
    for options in (["--bind-to", "none"], ["--mca", "mpi_yield_when_idle", "1"]):
        start = mpirun.index(options[0])
        assert mpirun[start : start + len(options)] == options


def test_an_unknown_launcher_is_refused() -> None:
    with pytest.raises(InputError, match="accepted are mpirun, srun"):
        rank_command(["models"], 2, "aprun")


def test_ranks_get_their_threads_whatever_the_caller_had_set() -> None:
    environment = rank_environment({"OMP_NUM_THREADS": "64", "HOME": "/h"}, threads=1)
    assert {environment[name] for name in THREAD_VARIABLES} == {"1"}
    assert environment["HOME"] == "/h"
    assert environment["OMPI_ALLOW_RUN_AS_ROOT"] == "1"
