"""Which files in a folder of checkpoints are ours: whatever else is there is never removed."""

import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hpc_lpm.documents import DocumentError, parse_json
from hpc_lpm.file_kinds import kind_of
from hpc_lpm.files import read_text

MANIFEST = "manifest.json"
HIDDEN = "."
"""What the name of a checkpoint begins with while it is written or replaced."""
PENDING = "-before-evaluation"
PARTIAL, REPLACED = ".partial", ".replaced"

NAME = re.compile(rf"step-([0-9]{{1,18}})({PENDING})?")
_ASIDE = re.compile(rf"\.step-[0-9]{{1,18}}({PENDING})?({PARTIAL}|{REPLACED})")
_FILE = re.compile(r"\.?(manifest\.json|rank-[0-9]{1,9}\.(json|safetensors|written))")
_NAMING = re.compile(r"manifest\.json|rank-[0-9]{1,9}\.json")
"""Files by which a checkpoint is known, damaged or not; weights alone may be anybody's."""
_REMOVED = re.compile(r"\.nfs[0-9a-f]+")


def is_own_checkpoint(path: Path) -> bool:
    """Tell if a folder holds nothing but what we write into a checkpoint, damaged or not."""
    return NAME.fullmatch(path.name) is not None and _holds_own_files(path)


def is_own(path: Path) -> bool:
    """Tell if an entry of a folder of checkpoints is a checkpoint of ours, or left of one."""
    left = _ASIDE.fullmatch(path.name) is not None and _holds_own_files(path, written=False)
    return left or is_own_checkpoint(path)


def own_leftovers(folder: Path, ending: str = "") -> Iterator[Path]:
    """Yield what earlier attempts to write checkpoints have left in a folder.

    Args:
        folder: of checkpoints, which need not exist.
        ending: `PARTIAL` or `REPLACED`, if one kind alone is meant.
    """
    for path in folder.glob(f"{HIDDEN}step-*{ending}"):
        if is_own(path):
            yield path


def foreign_entries(folder: Path) -> list[Path]:
    """Return what is in a folder of checkpoints and is not ours, in order of its name.

    A file in place of the folder is foreign itself; a folder that does not exist holds nothing.
    """
    if not folder.is_dir():
        return [folder] if folder.exists() or folder.is_symlink() else []
    entries = sorted(folder.iterdir())
    return [path for path in entries if not is_own(path) and not _is_removed_checkpoint(path)]


def is_removed(path: Path) -> bool:
    """Tell if a file was removed while somebody reads it, until when NFS names it so."""
    return _REMOVED.fullmatch(path.name) is not None


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, or what is left of one.

    Its name goes first: what a removal leaves that is cut short is then known as left of ours,
    while weights alone under the name of a checkpoint may be anybody's. Files that somebody reads
    over NFS stay there until nobody does.

    Raises:
        OSError: if something of it cannot be removed.
    """
    if NAME.fullmatch(path.name):
        aside = path.with_name(f"{HIDDEN}{path.name}{REPLACED}")
        if is_own(aside):
            shutil.rmtree(aside)
        with suppress(OSError):  # something else has that name
            path = path.rename(aside)
    try:
        shutil.rmtree(path)
    except OSError:
        if not _is_removed_checkpoint(path):
            raise


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of ours in a folder, and the folder if nothing else is in it."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if is_own(path):
            remove_checkpoint(path)
    with suppress(OSError):  # it holds something else, or is a link
        folder.rmdir()


def remove_checkpoints_after(folder: Path, step: int, *, pending: bool = False) -> None:
    """Remove the checkpoints in a folder that were saved later than one of this optimizer step.

    Args:
        folder: of checkpoints, which need not exist.
        step: of the one that stays.
        pending: whether that one was saved before the evaluation that was due at its step; what was
            saved behind that evaluation is then later.
    """
    for path in folder.glob("step-*"):
        match = NAME.fullmatch(path.name)
        if match is None or not is_own_checkpoint(path):
            continue
        if (int(match[1]), match[2] is None) > (step, not pending):
            remove_checkpoint(path)


def _holds_own_files(folder: Path, *, written: bool = True) -> bool:
    """Tell if nothing but our files is in a folder; `written`: among them one that names it."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    try:
        found = list(folder.iterdir())
    except OSError:  # it is being removed, or nobody may look into it
        return False
    if not all(_FILE.fullmatch(path.name) and path.is_file() for path in found):
        return False
    if written and found and not any(_NAMING.fullmatch(path.name) for path in found):
        return False
    return _is_no_other_manifest(folder / MANIFEST)


def _is_removed_checkpoint(path: Path) -> bool:
    """Tell if a folder holds nothing but removed files of a checkpoint that somebody reads."""
    if not (_ASIDE.fullmatch(path.name) and path.name.endswith(REPLACED)):
        return False
    try:
        found = [] if path.is_symlink() else list(path.iterdir())
    except OSError:  # it is no folder, or gone
        return False
    return bool(found) and all(map(is_removed, found))


def _is_no_other_manifest(path: Path) -> bool:
    """Tell if a manifest is ours or damaged, and not a sound document of something else."""
    try:
        document = parse_json(read_text(path))
    except (OSError, UnicodeDecodeError, DocumentError):
        return True
    return kind_of(document) == "checkpoint manifest"
