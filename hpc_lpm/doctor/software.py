"""The Python and the packages that ranks run: complete, and the same on all nodes."""

import importlib.metadata
import re
import shlex
import sys
from pathlib import Path

from hpc_lpm.doctor.probe_report import by_host
from hpc_lpm.doctor.situation import Finding, Situation
from hpc_lpm.programs import ask, installed

_PACKAGES = "packages"

NEEDED = ("torch", "deepspeed", "mpi4py")

# Without starting MPI: this process may be a rank whose job the child must not join.
_IMPORT_HOROVOD = (
    "import mpi4py; mpi4py.rc.initialize = False; "
    "import mpi4py.MPI, horovod.torch, horovod; print(horovod.__version__)"
)
_IMPORT_SECONDS = 60.0


def check_packages(situation: Situation) -> Finding:
    """Judge what is installed."""
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
            f"no mpirun answers beside {sys.executable}: {mpirun.complaint()}",
            "run `make setup`, which installs Open MPI there",
        )
    launcher = _number(mpirun.output)
    shown = [f"{name} {version}" for name, version in versions.items()] + [f"Open MPI {launcher}"]
    library = situation.jobs[0].library if situation.jobs else ""
    if library and launcher not in library:
        return Finding(
            _PACKAGES,
            "warning",
            f"mpirun is of Open MPI {launcher}, mpi4py runs on {library.split(',')[0]}",
            "run `make setup` in a shell without modules of another MPI, and unset LD_LIBRARY_PATH",
        )
    horovod = ask([sys.executable, "-c", _IMPORT_HOROVOD], seconds=_IMPORT_SECONDS)
    if not horovod.done:
        lines = horovod.errors.strip().splitlines() or [horovod.complaint()]
        return Finding(
            _PACKAGES,
            "warning",
            f"{', '.join(shown)}; Horovod cannot be imported: {lines[-1]}",
            "run `make setup`, which builds it; only --strategy horovod needs it",
        )
    return Finding(_PACKAGES, "ok", ", ".join([*shown, f"Horovod {horovod.output.strip()}"]))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _number(text: str) -> str:
    found = re.search(r"\d+(\.\d+)+", text)
    return found.group() if found else text.strip()


_ENVIRONMENT = "environment"

_SEEING_SECONDS = 30.0
_ONE_FOLDER = (
    "install once, in a folder on a file system that all nodes mount (`make setup` in a checkout "
    "there), and start with the Python of its .venv"
)


def check_environment(situation: Situation) -> Finding:
    """Judge what the ranks run; where none came in a job of several nodes, ask which see Python."""
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
            _ENVIRONMENT, "warning", f"Python is not the same file: {differing}", _ONE_FOLDER
        )
    everywhere = f" on all {len(hosts)} nodes" if len(hosts) > 1 else ""
    return Finding(_ENVIRONMENT, "ok", f"{job.ranks[0].software.executable}{everywhere}")


def _differing(values: dict[str, str]) -> str:
    """Return which hosts have which value, empty if all have the same."""
    having: dict[str, list[str]] = {}
    for host, value in values.items():
        having.setdefault(value, []).append(host)
    if len(having) == 1:
        return ""
    return "; ".join(f"{one} on {', '.join(names[:4])}" for one, names in having.items())


def _without_ranks(situation: Situation) -> Finding:
    allocation = situation.allocation
    if allocation is None or allocation.nodes == 1 or not installed("srun"):
        return Finding(
            _ENVIRONMENT, "warning", "not looked at: the ranks did not come", "mend the ranks"
        )
    look = f"test -x {shlex.quote(sys.executable)} || hostname"
    answer = ask(
        [
            *("srun", "--overlap", "--mpi=none", f"--nodes={allocation.nodes}"),
            *("--ntasks-per-node=1", "sh", "-c", look),
        ],
        seconds=_SEEING_SECONDS,
    )
    blind = ", ".join(answer.output.split())
    if answer.done and blind:
        return Finding(
            _ENVIRONMENT, "failed", f"{sys.executable} is not there on {blind}", _ONE_FOLDER
        )
    if answer.done:
        return Finding(
            _ENVIRONMENT, "ok", f"{sys.executable} is there on all {allocation.nodes} nodes"
        )
    return Finding(
        _ENVIRONMENT,
        "warning",
        f"srun could not ask the nodes for {sys.executable}: {answer.complaint()}",
        "start `srun hostname` in a job and mend what it says",
    )
