"""Describes what a campaign runs on and from, as JSON, to repeat it or to explain a difference."""

import getpass
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.cluster.launchers import launcher_options
from hpc_lpm.cluster.machine import describe_machine
from hpc_lpm.cluster.slurm import slurm_settings
from hpc_lpm.documents import parse_json
from hpc_lpm.files import read_text

_HOME = Path(__file__).resolve().parents[2]
CHECKOUT = _HOME if (_HOME / "pyproject.toml").is_file() else None
"""The checkout that the toolkit runs from; None where it is an installed package."""
CONSTRAINTS = Path(__file__).with_name("constraints.txt")

_WHOLE_BYTES = 2**24
"""Of larger files that git does not know, such as data, the size stands for the contents."""

SLURM_VARIABLES = (
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_NODELIST",
    "SLURM_NTASKS",
    "SLURM_CPUS_PER_TASK",
)

SNAKEMAKE_PLUGINS = "snakemake-executor-plugin-"


def describe_environment(campaign: Campaign) -> dict[str, Any]:
    """Return what a campaign runs on and from; facts that cannot be found out are None."""
    packages, machine = _packages(), describe_machine()
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "campaign": campaign.name,
        "campaign_sha256": campaign_sha256(campaign),
        "seeds": campaign.seeds,
        "user": _user(),
        "git": describe_source(CHECKOUT),
        "study": describe_study(Path.cwd()),
        "host": machine.host,
        "kernel": platform.platform(),
        "processor": _lscpu(),
        "cores": machine.cores,
        "memory_bytes": machine.memory_bytes,
        "gpus": list(machine.gpus),
        "interconnects": machine.interconnects,
        "python": sys.version.split()[0],
        "packages": packages,
        "locked_packages": compare_with_lock(CONSTRAINTS, packages),
        "mpi": {
            "launcher": campaign.launcher.mpi,
            "options": list(launcher_options(campaign.launcher.mpi, campaign.launcher.options)),
            "version": _mpi_version(),
        },
        "slurm": {
            "version": _first_line(["sinfo", "--version"]),
            "settings": slurm_settings(),
            "plugins": {k: v for k, v in packages.items() if k.startswith(SNAKEMAKE_PLUGINS)},
            "variables": {k: os.environ[k] for k in SLURM_VARIABLES if k in os.environ},
        },
    }


class _Source(BaseModel):
    revision: str | None = None
    dirty: bool | None = None
    diff_sha256: str | None = None


class _Recorded(BaseModel):
    """What is read of the record of an environment; all of it may be missing."""

    started: datetime | None = None
    user: str | None = None
    git: _Source | None = None
    study: _Source | None = None
    host: str = ""
    kernel: str = ""
    processor: dict[str, str] = {}
    cores: int = 0
    python: str = ""
    packages: dict[str, str] = {}
    mpi: dict[str, Any] = {}


def read_environment(path: Path) -> dict[str, Any] | None:
    """Return what `describe_environment` found when the campaign started.

    None if it was not recorded, or its record is damaged.
    """
    try:
        document = parse_json(read_text(path))
        _Recorded.model_validate(document)
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def campaign_sha256(campaign: Campaign) -> str:
    """Return the hash of a resolved campaign, which the layout of its file does not change."""
    return hashlib.sha256(campaign.model_dump_json().encode()).hexdigest()


def describe_source(repository: Path | None) -> dict[str, Any]:
    """Return the git revision and the hash of uncommitted changes; all None outside a repository.

    `diff_sha256` covers changes of tracked files and the contents of untracked ones (the sizes of
    those of more than 16 MiB), except in `results/`, where campaigns write; it is None without any.
    Where git does not tell of changes, as on a slow file system, `dirty` is None too.

    Args:
        repository: a folder of the repository, whose files alone are looked at; None if there is
            none.
    """
    git, source = ["git", "-C", str(repository)], ["--", ".", ":(exclude)results"]
    revision = _run([*git, "rev-parse", "--verify", "-q", "HEAD"]) if repository else None
    if repository is None or revision is None:
        return {"revision": None, "dirty": None, "diff_sha256": None}
    difference = hashlib.sha256()
    diff = _run([*git, "diff", "HEAD", "--binary", *source])
    untracked = _run([*git, "ls-files", "--others", "--exclude-standard", "-z", *source])
    if diff is None or untracked is None:
        return {"revision": revision.strip(), "dirty": None, "diff_sha256": None}
    names = sorted(filter(None, untracked.split("\0")))
    difference.update(diff.encode())
    for name in names:
        difference.update(name.encode())
        difference.update(_contents(repository / name))
    dirty = bool(diff or names)
    return {
        "revision": revision.strip(),
        "dirty": dirty,
        "diff_sha256": difference.hexdigest() if dirty else None,
    }


def describe_study(folder: Path) -> dict[str, Any] | None:
    """Return the source, as `describe_source` does, of the folder that a campaign is run in.

    None if that is the toolkit's own checkout.
    """
    own = CHECKOUT is not None and folder.resolve().is_relative_to(CHECKOUT)
    return None if own else describe_source(folder)


def _contents(path: Path) -> bytes:
    if not path.is_file():
        return b""
    size = path.stat().st_size
    return path.read_bytes() if size <= _WHOLE_BYTES else f"{size} bytes".encode()


def _user() -> str | None:
    """Return the user's name in git, or else the name of the account."""
    name = _first_line(["git", "config", "user.name"])
    try:
        return name or getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in some containers
        return None


def _packages() -> dict[str, str]:
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _lscpu() -> dict[str, str]:
    lines = (_run(["lscpu"], environment={"LC_ALL": "C"}) or "").splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _mpi_version() -> str | None:
    own = Path(sys.executable).parent / "mpirun"
    return _first_line([str(own) if own.exists() else "mpirun", "--version"])


def _first_line(command: Sequence[str]) -> str | None:
    text = _run(command)
    return text.splitlines()[0] if text else None


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> str | None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def compare_with_lock(constraints: Path, installed: Mapping[str, str]) -> dict[str, Any] | None:
    """Compare the installed packages with those that the toolkit was tested with.

    Returns the SHA-256 of the constraints file; `differing`, which maps names to the locked and the
    installed version, where a build such as 2.13.0+cpu of the locked version does not differ; and
    `not_locked`, the installed packages that the file does not name. None without that file.

    Args:
        constraints: the file that locks the tested versions.
        installed: version of each installed package.
    """
    if not constraints.is_file():
        return None
    content = constraints.read_bytes()
    lines = (line.partition("#")[0].strip() for line in content.decode().splitlines())
    requirements = [Requirement(line) for line in lines if line]
    locked = {canonicalize_name(requirement.name): requirement for requirement in requirements}
    differing: dict[str, dict[str, str]] = {}
    not_locked: list[str] = []
    for name, version in installed.items():
        requirement = locked.get(canonicalize_name(name))
        if requirement is None:
            not_locked.append(name)
        elif not requirement.specifier.contains(version, prereleases=True):
            differing[name] = {"locked": str(requirement.specifier), "installed": version}
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "differing": differing,
        "not_locked": not_locked,
    }
