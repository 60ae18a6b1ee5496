"""Read and write the JSON files that one step hands to the next."""

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hpc_lpm.documents import DocumentError, parse_json, shortened
from hpc_lpm.errors import InputError
from hpc_lpm.file_kinds import describe_kind, kind_of_text, mistaken_for
from hpc_lpm.typed_values import describe_validation_error

LONGEST_NAME_BYTES = 255
"""The longest name of a file that Linux file systems take."""
_ENDING_BYTES, _TRIED_BYTES = 20, 4096
_GZIP = b"\x1f\x8b"

MOST_BYTES = 2**28
"""Results of very long runs are smaller, and what is meant to be data of a training is no text."""


def read_text(path: Path, errors: str = "strict") -> str:
    """Return the text of a file that a user has named, which is in UTF-8.

    A byte-order mark at its beginning, which spreadsheets write, is none of the text.

    Args:
        path: the file.
        errors: what becomes of bytes that are not UTF-8, as Python's `open` takes it.

    Raises:
        OSError: if it cannot be read, is larger than `MOST_BYTES`, or is a pipe or device: that
            would block, have no end, or be empty for whoever reads it next.
        UnicodeDecodeError: if it is not UTF-8.
    """
    try:
        found = path.stat()
    except ValueError:  # of a name with a null character
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    for is_kind, kind in _NO_FILES:
        if is_kind(found.st_mode):
            reason = f"it is {kind}, accepted is a regular file"
            raise OSError(errno.EINVAL, reason, str(path))
    if found.st_size > MOST_BYTES:
        reason = f"it has {found.st_size:,} bytes, accepted are up to {MOST_BYTES:,}"
        raise OSError(errno.EFBIG, reason, str(path))
    return path.read_text(encoding="utf-8-sig", errors=errors)


def unreadable(what: str, error: OSError | UnicodeDecodeError, form: str = "text") -> InputError:
    """Return the error to raise if `read_text` raises one for a file that a user has to mend.

    Args:
        what: the kind of file and its path.
        error: what `read_text` has raised.
        form: what it is read as.
    """
    reason, remedy = str(error), "mend it"
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        reason = f"byte {error.start:,} of it, {byte:#04x}, is no UTF-8"
        remedy = "save it in UTF-8"
    return InputError(
        f"{what} cannot be read as {form} ({reason}): {remedy}, or name another file."
    )


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield the path of a file beside `path`; what is written to it gets that name at the end.

    Readers never see half a file, and nothing is left behind if the `with` block fails. Until it
    has its name nobody else can read it, or guess what it is called; then the umask says who may.
    Where `path` is a symbolic link, the file that it leads to is replaced.

    Raises:
        InputError: if `path` is a device, a pipe or a socket, whose place a file would take.
        OSError: if it cannot be written, of which `path` is the file name.
    """
    try:
        target = _regular(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = _beside(target)
        try:
            yield aside
            follow_umask(aside)
            _sync(aside)
            aside.replace(target)
        finally:
            with suppress(OSError):
                aside.unlink()
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def write_text_atomically(path: Path, text: str) -> None:
    """Write `text` to a file as `written_aside` does.

    Raises:
        InputError: as `written_aside`.
        OSError: likewise.
    """
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def check_can_write(path: Path) -> None:
    """Check that a file can be written to `path`, before the work whose result it is to hold.

    Folders that are missing on the way are not made: a file is tried beside the first of them.

    Raises:
        InputError: as `written_aside`.
        OSError: likewise; `cli.errors` says so in a sentence.
    """
    try:
        target = _regular(path)
        missing = next(
            (each for each in (*reversed(target.parents), target) if not each.exists()), target
        )
        tried = _beside(missing)
        try:
            tried.write_bytes(bytes(_TRIED_BYTES))  # a full disk takes empty files
            _sync(tried)
        finally:
            tried.unlink()
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def _regular(path: Path) -> Path:
    """Return the file that `path` leads to, which a file may replace."""
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    for is_kind, kind in _NO_FILES:
        if is_kind(mode):
            raise InputError(
                f"{path} is {kind}, whose place a file would take: name a file, or leave the "
                "option out."
            )
    return target


_NO_FILES = (
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    """Make an empty file beside `path`, hidden and private, and return its path."""
    name = path.name
    if len(os.fsencode(name)) > LONGEST_NAME_BYTES - _ENDING_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    descriptor, aside = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    return Path(aside)


def follow_umask(path: Path) -> None:
    """Give a file or folder that was private the mode that this process gives to new ones.

    Raises:
        OSError: if that fails.
    """
    usual = 0o777 if path.is_dir() else 0o666
    path.chmod(usual & ~_umask())


def _umask() -> int:
    """Return the umask, without setting it to find out, which other threads would notice."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


class VersionedFile(BaseModel):
    """A JSON file with a `schema_version`, read through one validated definition.

    Subclasses set `kind`, the name by which users know the file, and may set `current_version`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ClassVar[str]
    current_version: ClassVar[int] = 1

    schema_version: int = 1

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read and validate the file.

        Args:
            path: The file.

        Raises:
            InputError: If the file is missing, is not JSON, has another schema version or does
                not match its definition.
        """
        path, text = Path(path), ""
        try:
            text = read_text(path)
            document = parse_json(text)
        except FileNotFoundError:
            raise InputError(
                f"{cls.kind} {path} does not exist: name an existing file or make it first."
            ) from None
        except UnicodeDecodeError as error:
            if path.read_bytes()[:2] == _GZIP:
                raise InputError(
                    f"{cls.kind} {path} is compressed by gzip: unpack it, and name the result."
                ) from None
            raise unreadable(f"{cls.kind} {path}", error) from None
        except OSError as error:
            raise unreadable(f"{cls.kind} {path}", error) from None
        except DocumentError as error:
            if kind := kind_of_text(text):
                raise cls._mistaken(path, describe_kind(kind)) from None
            raise InputError(f"{cls.kind} {path} is not JSON ({error}): make it again.") from None
        return cls.from_document(document, str(path))

    @classmethod
    def from_document(cls, document: object, where: str) -> Self:
        """Validate a parsed document; `where` names it in errors.

        Raises:
            InputError: if the document is another kind of file, has another schema version or does
                not match the definition.
        """
        if what := mistaken_for(cls.kind, document):
            raise cls._mistaken(where, what)
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != cls.current_version:
            raise InputError(
                f"{cls.kind} {where} has schema_version {shortened(version)}, accepted is "
                f"{cls.current_version}: make it again with this release."
            )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise InputError(
                f"{cls.kind} {where} is broken at {describe_validation_error(error)}: "
                "make it again."
            ) from None

    @classmethod
    def _mistaken(cls, where: Path | str, what: str) -> InputError:
        return InputError(f"{where} is {what}, and no {cls.kind}: name the {cls.kind} instead.")

    def write(self, path: Path | str) -> None:
        """Write the file as indented JSON, atomically; folders that lead to it are made.

        Args:
            path: The file.

        Raises:
            InputError: If `path` is no regular file.
            OSError: If it cannot be written.
        """
        write_text_atomically(Path(path), self.text())

    def text(self) -> str:
        """Return what `write` writes."""
        return self.model_dump_json(indent=2) + "\n"
