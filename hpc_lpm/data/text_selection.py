"""Which files of a folder are its text."""

from pathlib import Path

from hpc_lpm.data.locations import is_folder, reading
from hpc_lpm.errors import InputError

_EVERYTHING_HERE = "*"
_BACKUP_ENDINGS = ("~", ".bak", ".swp", ".swo", ".orig")


def selected_files(path: Path, pattern: str | None, *, hidden: bool) -> list[Path]:
    """Return a file itself, or the regular files of a folder in the order of their names.

    Args:
        path: the file or folder.
        pattern: which files of the folder, such as `**/*.py`, or several patterns as a+b; None for
            all that lie directly in it.
        hidden: whether hidden and backup files count.

    Raises:
        InputError: if `path` is neither, cannot be listed, or no file matches.
    """
    if not is_folder(path, "text"):
        if pattern is not None:
            raise InputError(
                f"option 'pattern' is {pattern!r} for the file {path}, accepted is a folder: leave "
                "the option out or name the folder."
            )
        return [path]
    wanted = _EVERYTHING_HERE if pattern is None else pattern
    found: set[Path] = set()
    for part in wanted.split("+"):
        try:
            with reading(path, "text"):
                found.update(file for file in path.glob(part) if file.is_file())
        except (NotImplementedError, ValueError) as error:
            raise InputError(
                f"option 'pattern' of text {path} is {wanted!r} ({error}), accepted are patterns "
                "within the folder, such as *.txt or **/*.py: correct it."
            ) from None
    shown = [file for file in sorted(found) if hidden or not _is_hidden(file, path)]
    if not shown:
        others = f", but {len(found)} hidden or backup files (,hidden=true)" if found else ""
        raise InputError(
            f"text {path} has no file that matches {wanted}{others}: name "
            "another folder, or a pattern such as ,pattern=**/*.py."
        )
    return shown


def _is_hidden(file: Path, folder: Path) -> bool:
    """Tell if a name of the path within the folder is that of a hidden or backup file."""
    return any(
        name.startswith(".")
        or name.endswith(_BACKUP_ENDINGS)
        or (name.startswith("#") and name.endswith("#"))
        for name in file.parts[len(folder.parts) :]
    )
