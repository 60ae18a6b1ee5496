"""Starts a study in a folder, completes one, and compares one with what would be written now.

The files lie in `template/` as they are written. Those of a checkout's slurm/ and profiles/ are
links to them, so that each has one home.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpc_lpm.campaign.workflow import check_names_for_shells
from hpc_lpm.errors import InputError
from hpc_lpm.files import unreadable, write_text_atomically
from hpc_lpm.study.record import RECORD, StudyRecord, digest

TEMPLATE = Path(__file__).parent / "template"

_HIDDEN = {"gitignore": ".gitignore"}
"""Files that must not have their effect inside the package."""
_NO_CONTENT = frozenset({".git"})


@dataclass(frozen=True)
class Outcome:
    """The paths of files that were written, and of those that were there and were kept."""

    written: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """How the files of a study differ from what this version would write.

    `differences` holds a unified diff for each file that would be written differently than when it
    was made, or that is missing. `edited` names the files that their owner has changed since.
    """

    versions: tuple[str, ...]
    differences: dict[str, str]
    edited: tuple[str, ...]


def study_files() -> dict[str, str]:
    """Return the text of every file of a new study, by its path."""
    paths = (path for path in sorted(TEMPLATE.rglob("*")) if path.is_file())
    names = ((path, path.relative_to(TEMPLATE)) for path in paths)
    return {
        _HIDDEN.get(str(name), name.as_posix()): path.read_text(encoding="utf-8")
        for path, name in names
        if "__pycache__" not in name.parts  # installers compile what they install
    }


def start_study(folder: Path) -> Outcome:
    """Write a study into a folder that is new or empty.

    Raises:
        InputError: if something is there already.
        OSError: if the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"{folder} is a file, accepted is a new or an empty folder: name another one."
        )
    found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if content := [name for name in found if name not in _NO_CONTENT]:
        raise InputError(
            f"{folder} is not empty (it holds {content[0]}), accepted is a new or an empty folder: "
            "name another one, or call `hpc-lpm init --here` in it to add the files that it lacks."
        )
    return complete_study(folder)


def complete_study(folder: Path) -> Outcome:
    """Write the files of a study that a folder lacks; keep those that it has.

    Raises:
        InputError: if something else is where a file or a folder has to be, or the name of the
            folder is one that shells would not take as it is; nothing is written then.
        OSError: if the folder cannot be written.
    """
    check_names_for_shells(("folder", folder.absolute()))
    earlier = StudyRecord.of(folder)
    files = study_files()
    for name in files:
        _check_way(folder, name)
    missing = {name: text for name, text in files.items() if not _is_there(folder / name)}
    for name, text in missing.items():
        write_text_atomically(folder / name, text)
    record = StudyRecord.after(earlier, missing)
    if record != earlier:
        record.write(folder / RECORD)
    return Outcome(tuple(missing), tuple(name for name in files if name not in missing))


def compare_study(folder: Path) -> Comparison:
    """Return what this version would write differently into a study; nothing is changed.

    Raises:
        InputError: if the folder holds no study, or a file of it is no text.
    """
    record, files = StudyRecord.of(folder), study_files()
    if record is None and not (folder / "Snakefile").is_file():
        raise InputError(
            f"{folder} holds no study (neither {RECORD} nor Snakefile is there): name a folder "
            "that hpc-lpm init has made."
        )
    differences, edited = {}, []
    gone = [name for name in (record.files if record else ()) if name not in files]
    for name in [*files, *gone]:
        now, then = files.get(name), _text_of(folder / name)
        made = record.files.get(name) if record else None
        if made and then is not None and made.sha256 != digest(then):
            edited.append(name)
        # What the toolkit writes has not changed, so that only the owner can have changed the file.
        as_ever = made and then is not None and now is not None and made.sha256 == digest(now)
        if now != then and not as_ever:
            differences[name] = "".join(_difference(name, then, now))
    return Comparison(tuple(record.versions) if record else (), differences, tuple(edited))


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _check_way(folder: Path, name: str) -> None:
    for parent in reversed(Path(name).parents):
        place = folder / parent
        if _is_there(place) and not place.is_dir():
            raise InputError(
                f"{place} is a file, needed is a folder of that name for {name}: move it away."
            )
    if (folder / name).is_dir():
        raise InputError(f"{folder / name} is a folder, needed is a file: move it away.")


def _text_of(path: Path) -> str | None:
    """Return the text of a file, None if it is not there."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise unreadable(str(path), error) from None


def _difference(name: str, then: str | None, now: str | None) -> Iterator[str]:
    """Yield the lines of a difference as `patch -p1` reads them."""
    old, new = ((text or "").splitlines(keepends=True) for text in (then, now))
    before = "/dev/null" if then is None else f"a/{name}"
    after = "/dev/null" if now is None else f"b/{name}"
    for line in difflib.unified_diff(old, new, before, after):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
