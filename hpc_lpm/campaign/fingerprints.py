"""Hashes of files and folders by their content, remembered so that large ones are read once.

Snakemake reads the campaign anew at every call, and a data set may be large. A file counts as
unchanged while its size and its time of modification are.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hpc_lpm.files import read_text, write_text_atomically

MEMORY = ".fingerprints.json"
"""The file in a campaign's folder in which hashes are remembered."""

_SMALL_BYTES = 2**20
"""What is smaller is read every time."""
_LARGE_BYTES = 2**30
"""What is larger takes a while to read."""
_SETTLED_SECONDS = 2.0
"""A file may change again without another time of modification until it is so old."""


class Fingerprints:
    """Hashes the content of files and folders.

    Args:
        path: the file in which hashes are remembered from call to call, None to forget them.
        say: called with a line for the user before much is read.
    """

    def __init__(
        self, path: Path | None = None, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self._path = path
        self._say = say
        self._known = _read(path) if path else {}
        self._changed = False

    def of(self, paths: Iterable[Path]) -> str:
        """Return the hash of the names and contents of files, and of all files in folders.

        Names are relative to the folder that holds all of them, which may move. What is not there
        does not count, nor do devices and pipes, nor hidden files in folders.
        """
        absolute = sorted({path.absolute() for path in paths})
        files = [file for path in absolute for file in _files(path)]
        if not files:
            return "nothing is there"
        listing, newest, size = _listing(files)
        key = hashlib.sha256("\0".join(map(str, absolute)).encode(errors="surrogateescape"))
        known = self._known.get(key.hexdigest())
        if known and known[0] == listing and size > _SMALL_BYTES:
            return known[1]
        if size > _LARGE_BYTES:
            self._say(f"reading {size / 2**30:.1f} GiB of {absolute[0]}, to know if it changes")
        content = _hash_all(files)
        if size > _SMALL_BYTES and time.time() - newest > _SETTLED_SECONDS:
            self._known[key.hexdigest()] = (listing, content)
            self._changed = True
        return content

    def of_listing(self, paths: Iterable[Path]) -> str:
        """Return the hash of the names, sizes and times of files and of all files in folders.

        It serves where only some of the files may matter, and nobody knows which.
        """
        files = [
            file for path in sorted({path.absolute() for path in paths}) for file in _files(path)
        ]
        return _listing(files)[0] if files else "nothing is there"

    def save(self) -> None:
        """Remember the hashes, if the folder to remember them in exists."""
        if self._changed and self._path and self._path.parent.is_dir():
            write_text_atomically(self._path, json.dumps(self._known))


def _files(path: Path) -> Iterator[Path]:
    """Yield the path of every regular file, sorted, also of those behind links to folders."""
    if path.is_file():
        yield path
        return
    # The real folders on the way to each that is still to come: a link to one of them leads back.
    ways: dict[str, frozenset[str]] = {}
    for folder, folders, names in os.walk(path, followlinks=True):
        way = ways.pop(folder, frozenset()) | {os.path.realpath(folder)}
        folders[:] = sorted(
            name
            for name in folders
            if not _passed_over(name) and os.path.realpath(Path(folder, name)) not in way
        )
        ways |= {str(Path(folder, name)): way for name in folders}
        for name in sorted(names):
            file = Path(folder, name)
            if not _passed_over(name) and file.is_file():
                yield file


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"


def _listing(files: list[Path]) -> tuple[str, float, int]:
    """Return a hash of names, sizes and times, the newest time, and the number of bytes."""
    digest, newest, size = hashlib.sha256(), 0.0, 0
    for path in files:
        try:
            found = path.stat()
        except OSError:  # it has just gone
            continue
        newest = max(newest, found.st_mtime)
        size += found.st_size
        told = f"{path}\0{found.st_size}\0{found.st_mtime_ns}\0"
        digest.update(told.encode(errors="surrogateescape"))
    return digest.hexdigest(), newest, size


def _hash_all(files: list[Path]) -> str:
    common = Path(os.path.commonpath(files)) if len(files) > 1 else files[0]
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            content = f"unreadable ({error.strerror})"
        told = f"{path.relative_to(common)}\0{content}\0"
        digest.update(told.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _read(path: Path) -> dict[str, tuple[str, str]]:
    try:
        text = read_text(path)
        return TypeAdapter(dict[str, tuple[str, str]]).validate_json(text)
    except (OSError, UnicodeDecodeError, ValidationError):
        return {}
