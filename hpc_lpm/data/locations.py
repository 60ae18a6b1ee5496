"""Files and folders that users name: taken as data, or refused in one sentence."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpc_lpm.errors import InputError
from hpc_lpm.identifiers import user_path

_UNUSUAL = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def require_file(path: Path, what: str) -> Path:
    """Return `path` if it is a regular file or a link to one.

    A pipe or device would block the rank that reads it, and be empty for the next.

    Args:
        path: what the user named.
        what: what it is for messages, such as "table" or "text".

    Raises:
        InputError: if it does not exist, or is a folder, pipe, socket or device.
    """
    mode = _mode(path, what)
    if stat.S_ISDIR(mode):
        raise InputError(f"{what} {path} is a folder, accepted is a file: name one of its files.")
    refuse_unusual(path, mode, what)
    return path


def require_folder(path: Path, what: str) -> Path:
    """Return `path` if it is a folder or a link to one.

    Raises:
        InputError: if it does not exist or is something else.
    """
    mode = _mode(path, what)
    refuse_unusual(path, mode, what)
    if not stat.S_ISDIR(mode):
        raise InputError(f"{what} {path} is a file, accepted is a folder: name the folder.")
    return path


def is_folder(path: Path, what: str) -> bool:
    """Tell if `path` is a folder; otherwise it is a regular file.

    Raises:
        InputError: if it does not exist, or is a pipe, socket or device.
    """
    mode = _mode(path, what)
    refuse_unusual(path, mode, what)
    return stat.S_ISDIR(mode)


def printable(name: str | Path) -> str:
    """Return a name that can be printed, where a file's name is no text in UTF-8."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def beside(folder: Path, text: str) -> Path:
    """Return the path that an option names, from the current folder or else from `folder`.

    It is the former if neither exists.
    """
    path = user_path(text)
    return path if path.exists() or not (folder / path).exists() else folder / path


def refuse_unusual(path: Path, mode: int, what: str) -> None:
    """Refuse what is neither a regular file nor a folder.

    Raises:
        InputError: if `mode`, as `os.stat` returns it, is that of a pipe, socket or device.
    """
    unusual = _UNUSUAL.get(stat.S_IFMT(mode))
    if unusual:
        raise InputError(
            f"{what} {path} is {unusual}, accepted is a regular file, since every rank reads it: "
            "save what comes out of it and name that file."
        )


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn the failure of a read into a sentence that names the file.

    Raises:
        InputError: if the body raises an OSError.
    """
    try:
        yield
    except OSError as error:
        raise unreadable(path, what, error) from None


def unreadable(path: Path, what: str, error: OSError | ValueError) -> InputError:
    """Return the error that says that `path` cannot be read and why."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return InputError(f"{what} {path} cannot be read ({reason}): name a readable file or folder.")


def _mode(path: Path, what: str) -> int:
    try:
        return path.stat().st_mode
    except (OSError, ValueError) as error:
        raise unreadable(path, what, error) from None
