"""Whether the Python and the packages that ranks run are complete and the same on all nodes."""

import importlib.metadata
import os
import re
import shlex
import sys
from pathlib import Path

from hpc_lpm.cluster.launchers import rank_environment
from hpc_lpm.doctor.probe_report import by_host
from hpc_lpm.doctor.situation import Finding, Situation
from hpc_lpm.engine.strategies.registry import STRATEGIES
from hpc_lpm.programs import ask, installed

_PACKAGES = "packages"

NEEDED = ("torch", "deepspeed", "mpi4py")

# Does not start MPI: this process may be a rank, whose job the child must not join.
_REQUIRE_STRATEGY = """
import sys, mpi4py
mpi4py.rc.initialize = False
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError
try:
    strategy_named(sys.argv[1]).require_installed()
except InputError as error:
    sys.stderr.write(f"{error}\\n")
    sys.exit(2)
"""
_IMPORT_SECONDS = 60.0


def check_packages(situation: Situation) -> Finding:
    """Check that the packages are installed and that mpirun belongs to the MPI of mpi4py."""
    versions = {name: _version(name) for name in NEEDED}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Finding(
            _PACKAGES, "failed", f"{', '.join(missing)} not installed", "run `make setup`"
        )
    mpirun = ask([str(Path(sys.executable).parent / "mpirun"), "--version"])
    if not mpirun.done:
        return Finding(
            _PACKAGES,
            "failed",
            f"the mpirun beside {sys.executable} does not run: {mpirun.complaint()}",
            "run `make setup`, which installs Open MPI there",
        )
    launcher = _number(mpirun.output)
    shown = [f"{name} {version}" for name, version in versions.items()] + [f"Open MPI {launcher}"]
    library = situation.jobs[0].library if situation.jobs else ""
    if library and launcher not in library:
        return Finding(
            _PACKAGES,
            "warning",
            f"mpirun belongs to Open MPI {launcher}, but mpi4py uses {library.split(',')[0]}",
            "run `make setup` in a shell in which no module of another MPI is loaded and "
            "LD_LIBRARY_PATH is unset",
        )
    for name, strategy in STRATEGIES.items():
        if strategy.package is None:
            continue
        problem, remedy = _problem_of_strategy(name)
        if problem:
            return Finding(_PACKAGES, "warning", f"{', '.join(shown)}; {problem}", remedy)
        shown.append(f"{strategy.package} {_version(strategy.package) or '(unknown version)'}")
    return Finding(_PACKAGES, "ok", ", ".join(shown))


def _problem_of_strategy(name: str) -> tuple[str, str]:
    """Return why the package of a strategy cannot be used and what to do; both empty if it can."""
    answer = ask(
        [sys.executable, "-c", _REQUIRE_STRATEGY, name],
        environment=rank_environment(os.environ, threads=1),
        seconds=_IMPORT_SECONDS,
    )
    if answer.done:
        return "", ""
    lines = answer.errors.strip().splitlines()
    if answer.exit_code == 2:
        # The strategy's own sentence, which ends with what to do.
        problem, _, remedy = lines[-1].rpartition(": ")
        return problem, remedy.rstrip(".")
    reason = lines[-1] if answer.exit_code == 1 and lines else answer.complaint()
    return f"--strategy {name} cannot be used ({reason})", "choose another strategy"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _number(text: str) -> str:
    found = re.search(r"\d+(\.\d+)+", text)
    return found.group() if found else text.strip()


_ENVIRONMENT = "environment"

_SEARCH_SECONDS = 30.0
_ONE_FOLDER = (
    "install once, in a folder that all nodes mount (`make setup` in a checkout there), and use "
    "the Python of its .venv everywhere"
)


def check_environment(situation: Situation) -> Finding:
    """Check that all nodes run the same Python with the same packages.

    If no ranks started in a Slurm job of several nodes, ask which nodes have our Python.
    """
    job = situation.job
    if job is None:
        return _without_ranks(situation)
    hosts = {host: local[0][1] for host, local in by_host(job.ranks).items()}
    for what in job.ranks[0].software.versions:
        differing = _differing({h: r.software.versions.get(what, "") for h, r in hosts.items()})
        if differing:
            return Finding(_ENVIRONMENT, "failed", f"{what} differs: {differing}", _ONE_FOLDER)
    differing = _differing({host: rank.software.executable for host, rank in hosts.items()})
    if differing:
        return Finding(
            _ENVIRONMENT, "warning", f"the ranks run different Pythons: {differing}", _ONE_FOLDER
        )
    everywhere = f" on all {len(hosts)} nodes" if len(hosts) > 1 else ""
    return Finding(
        _ENVIRONMENT, "ok", f"all ranks run {job.ranks[0].software.executable}{everywhere}"
    )


def _differing(values: dict[str, str]) -> str:
    """Return which hosts have which value, or an empty text if all have the same."""
    having: dict[str, list[str]] = {}
    for host, value in values.items():
        having.setdefault(value, []).append(host)
    if len(having) == 1:
        return ""
    return "; ".join(f"{one} on {', '.join(names[:4])}" for one, names in having.items())


def _without_ranks(situation: Situation) -> Finding:
    allocation = situation.allocation
    if allocation is None or allocation.nodes == 1 or not installed("srun"):
        return situation.not_examined(_ENVIRONMENT)
    search = f"test -x {shlex.quote(sys.executable)} || hostname"
    answer = ask(
        [
            *("srun", "--overlap", "--mpi=none", f"--nodes={allocation.nodes}"),
            *("--ntasks-per-node=1", "sh", "-c", search),
        ],
        seconds=_SEARCH_SECONDS,
    )
    missing = ", ".join(answer.output.split())
    if answer.done and missing:
        return Finding(
            _ENVIRONMENT, "failed", f"{sys.executable} does not exist on {missing}", _ONE_FOLDER
        )
    if answer.done:
        return Finding(
            _ENVIRONMENT, "ok", f"{sys.executable} exists on all {allocation.nodes} nodes"
        )
    return Finding(
        _ENVIRONMENT,
        "warning",
        f"srun could not look for {sys.executable} on the nodes: {answer.complaint()}",
        "run `srun hostname` in the job and fix what it reports",
    )
