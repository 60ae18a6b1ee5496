"""Read and write the JSON files that one step hands to the next."""

import errno
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hpc_lpm.errors import InputError
from hpc_lpm.file_kinds import describe_kind, kind_of_text, mistaken_for
from hpc_lpm.typed_values import describe_validation_error

LONGEST_NAME_BYTES = 255
"""The longest name of a file that Linux file systems take."""
_ENDING_BYTES = 20
_GZIP = b"\x1f\x8b"


def write_text_atomically(path: Path, text: str) -> None:
    """Write `text` to a file beside `path`, sync and rename it: readers never see half a file.

    Raises:
        OSError: if it cannot be written, of which `path` is the file name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _beside(path)
    try:
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_can_write(path: Path) -> None:
    """Check that a file can be written to `path`, before the work whose result it is to hold.

    Raises:
        OSError: if it cannot; `cli.errors` says so in a sentence.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _beside(path)
    aside.touch()
    aside.unlink()


def _beside(path: Path) -> Path:
    """Return the path of a hidden file beside `path`, whose name is no longer than may be."""
    name = path.name
    if len(os.fsencode(name)) > LONGEST_NAME_BYTES - _ENDING_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.parent / f".{name}.{os.getpid()}.tmp"


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
            text = path.read_text(encoding="utf-8")
            document = json.loads(text)
        except FileNotFoundError:
            raise InputError(
                f"{cls.kind} {path} does not exist: name an existing file or make it first."
            ) from None
        except UnicodeDecodeError as error:
            if path.read_bytes()[:2] == _GZIP:
                raise InputError(
                    f"{cls.kind} {path} is compressed by gzip: unpack it, and name the result."
                ) from None
            raise InputError(f"{cls.kind} {path} cannot be read: {error}.") from None
        except OSError as error:
            raise InputError(f"{cls.kind} {path} cannot be read: {error}.") from None
        except json.JSONDecodeError as error:
            if kind := kind_of_text(text):
                raise cls._mistaken(path, describe_kind(kind)) from None
            raise InputError(
                f"{cls.kind} {path} is not JSON (line {error.lineno}: {error.msg}): make it again."
            ) from None
        except RecursionError:
            raise InputError(
                f"{cls.kind} {path} nests too deeply to be one: make it again."
            ) from None
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
                f"{cls.kind} {where} has schema_version {version!r}, accepted is "
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
            OSError: If it cannot be written.
        """
        write_text_atomically(Path(path), self.text())

    def text(self) -> str:
        """Return what `write` writes."""
        return self.model_dump_json(indent=2) + "\n"
