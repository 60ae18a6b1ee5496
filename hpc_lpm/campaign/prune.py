"""Finds what is left in a campaign's folder of settings that the campaign no longer has."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpc_lpm.campaign.driver import no_driver
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.identity import DIGITS, IDENTITY, Identity
from hpc_lpm.campaign.steps import RUN_FILES
from hpc_lpm.documents import DocumentError, parse_json
from hpc_lpm.errors import InputError
from hpc_lpm.file_kinds import kind_of
from hpc_lpm.files import read_text

_STEP_FILES = (".json", ".launch.json", ".log")
_LAUNCH_LOG = re.compile(r"-[0-9]{1,4}\.log$")
"""The end of the name of the log of one launch of a tuning."""


_ENDING = re.compile(r"(\.launch)?\.json$|(-[0-9]{1,4})?\.log$")
_HASHED = re.compile(rf"-[0-9a-f]{{{DIGITS}}}$")
"""The end of the names that campaigns give, without that of the file."""
_OF_RUNS = (IDENTITY, *RUN_FILES)
"""Files by which a run is known whose name has no hash, as earlier releases gave them."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder that is of no use to the campaign as it was started last, and why."""

    path: Path
    reason: str

    @property
    def size_bytes(self) -> int:
        """Bytes of all files in it."""
        if self.path.is_file():
            return self.path.stat().st_size
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


def find_leftovers(root: Path) -> list[Leftover]:
    """Return the runs, plans, profiles and tunings in a campaign's folder that it does not name.

    What calls of Snakemake have left of shared launches is among it, of no use to any other call.

    Raises:
        InputError: if this is no folder of a campaign, or one that knows no hashes.
    """
    folder = CampaignFolder.at(root)
    folder.read_campaign()
    if not folder.hashes_file.exists():
        raise InputError(
            f"{root} was written by an earlier release, and what is left over in it cannot be "
            "told: call snakemake first."
        )
    hashes = folder.hashes
    found: list[Leftover] = []
    kept = {folder.run_name(name): name for name in hashes.runs}
    for path in _in(root / "runs"):
        if path.name not in kept and _is_own_run(path):
            found.append(Leftover(path, _why(path, folder)))
    kinds = {"plans": hashes.plans, "profiles": hashes.profiles, "tuned": hashes.tuned}
    for kind, named in kinds.items():
        files = {f"{name}-{digest}{end}" for name, digest in named.items() for end in _STEP_FILES}
        found += [
            Leftover(path, "it is not of this campaign any more")
            for path in _in(root / kind)
            if path.name not in files
            and _LAUNCH_LOG.sub(".log", path.name) not in files
            and _is_own_step_file(path)
        ]
    calls = {path.stem for path in _in(root / "provenance" / "calls")}
    found += [
        Leftover(path, "only the call of snakemake that has trained it on shared ranks uses it")
        for path in _in(root / "shared")
        if path.name in calls
    ]
    return found


def _is_own_run(path: Path) -> bool:
    """Tell if a campaign has made a folder in `runs`; what a user has put there is left alone."""
    return _HASHED.search(path.name) is not None or any(
        (path / name).is_file() for name in _OF_RUNS
    )


def _is_own_step_file(path: Path) -> bool:
    """Tell the same of what is in the folder of plans, of profiles or of tunings."""
    if _HASHED.search(_ENDING.sub("", path.name)):
        return True
    if path.suffix != ".json":
        return path.suffix == ".log" and path.with_suffix(".json").exists()
    try:
        return kind_of(parse_json(read_text(path))) is not None
    except (OSError, UnicodeDecodeError, DocumentError):
        return False


def remove_leftovers(root: Path, leftovers: list[Leftover]) -> None:
    """Remove what `find_leftovers` has found.

    Raises:
        InputError: if a driver works on the campaign.
    """
    with no_driver(root):
        for leftover in leftovers:
            if leftover.path.is_dir():
                shutil.rmtree(leftover.path)
            else:
                leftover.path.unlink(missing_ok=True)


def _in(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.iterdir())) if folder.is_dir() else iter(())


def _why(path: Path, folder: CampaignFolder) -> str:
    """Say what differs from the trial of the same name, if it is still one."""
    trial = next(
        (name for name in folder.hashes.runs if path.name in (name, f"{name}-{_hash_of(path)}")),
        None,
    )
    if trial is None:
        return "its trial is not of this campaign any more"
    try:
        changes = Identity.read(path / IDENTITY).changes_to(
            Identity.read(folder.run(trial) / IDENTITY)
        )
    except InputError:
        return "what it was computed from is not that of its trial now"
    return ", ".join(changes)


def _hash_of(path: Path) -> str:
    return path.name.rpartition("-")[2]
