"""The packages that runs stand on, and whether mpirun is of the MPI that mpi4py was bound to."""

import importlib.metadata
import re
import sys
from pathlib import Path

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.situation import Situation
from hpc_lpm.programs import ask

NAME = "packages"

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
        return Finding(NAME, "failed", f"{', '.join(missing)} not installed", "run `make setup`")
    mpirun = ask([str(Path(sys.executable).parent / "mpirun"), "--version"])
    if not mpirun.done:
        return Finding(
            NAME,
            "failed",
            f"no mpirun answers beside {sys.executable}: {mpirun.complaint()}",
            "run `make setup`, which installs Open MPI there",
        )
    launcher = _number(mpirun.output)
    shown = [f"{name} {version}" for name, version in versions.items()] + [f"Open MPI {launcher}"]
    library = situation.jobs[0].library if situation.jobs else ""
    if library and launcher not in library:
        return Finding(
            NAME,
            "warning",
            f"mpirun is of Open MPI {launcher}, mpi4py runs on {library.split(',')[0]}",
            "run `make setup` in a shell without modules of another MPI, and unset LD_LIBRARY_PATH",
        )
    horovod = ask([sys.executable, "-c", _IMPORT_HOROVOD], seconds=_IMPORT_SECONDS)
    if not horovod.done:
        lines = horovod.errors.strip().splitlines() or [horovod.complaint()]
        return Finding(
            NAME,
            "warning",
            f"{', '.join(shown)}; Horovod cannot be imported: {lines[-1]}",
            "run `make setup`, which builds it; only --strategy horovod needs it",
        )
    return Finding(NAME, "ok", ", ".join([*shown, f"Horovod {horovod.output.strip()}"]))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _number(text: str) -> str:
    found = re.search(r"\d+(\.\d+)+", text)
    return found.group() if found else text.strip()
