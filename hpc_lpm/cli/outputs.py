"""What a command may write to, checked before its work: nothing of ours that it would destroy."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hpc_lpm.documents import DocumentError, parse_json, parse_yaml
from hpc_lpm.engine.checkpoint.own_files import is_own_checkpoint
from hpc_lpm.errors import InputError
from hpc_lpm.file_kinds import describe_kind, kind_of, kind_of_text
from hpc_lpm.files import check_can_write, read_text
from hpc_lpm.identifiers import parse_identifier, user_path
from hpc_lpm.sources import module_named_in, source_files

_YAML = {".yaml", ".yml"}
_FOLDERS_ABOVE = 2
"""A file may be in a checkpoint, or beside some of them."""


def check_output(
    option: str, path: Path | None, *, kind: str | None = None, inputs: Iterable[Path] = ()
) -> None:
    """Check that a command may write a file, before the work whose result it is to hold.

    Args:
        option: that names the file.
        path: the file; None if the option was not given.
        kind: the kind of file of ours that is written, which may replace one of its kind.
        inputs: the files that the command reads.

    Raises:
        InputError: if it is one of the inputs, another link to one of them, lies among checkpoints,
            or is a file of ours of another kind.
        OSError: if it cannot be written.
    """
    if path is None:
        return
    check_can_write(path)
    for read in inputs:
        if _is_same_file(path, read):
            raise InputError(
                f"{option} {path} is {read}, which this command reads or writes otherwise: name "
                "another file."
            )
    target = Path(os.path.realpath(path))
    for folder in list(target.parents)[:_FOLDERS_ABOVE]:
        if is_own_checkpoint(folder) or any(map(is_own_checkpoint, folder.glob("step-*"))):
            raise InputError(
                f"{option} {path} lies among the checkpoints in {folder}, where runs write and "
                "remove files: name a file in another folder."
            )
    found = _kind_of_file(target) if target.is_file() else None
    if found not in {None, kind}:
        raise InputError(
            f"{option} {path} is {describe_kind(str(found))}, which this command would replace by "
            "another kind of file: name another file, or remove this one first."
        )


def named_inputs(*identifiers: str | None) -> Iterator[Path]:
    """Yield the files that identifiers of models, data sets and functions name, as far as known.

    They are the file behind a colon, and the sources of a module of the user's own.
    """
    for identifier in filter(None, identifiers):
        module = module_named_in(identifier)
        yield from source_files(module).values() if module else ()
        try:
            argument = parse_identifier(identifier).argument
        except InputError:  # refused where it is used
            continue
        if argument:
            yield user_path(argument)


def _is_same_file(path: Path, other: Path) -> bool:
    if os.path.realpath(path) == os.path.realpath(other):  # neither may exist yet
        return True
    try:
        return path.samefile(other)
    except (OSError, ValueError):  # one of them does not exist, or has no name of a file
        return False


def _kind_of_file(path: Path) -> str | None:
    """Return the kind of file of ours that is there, None if it is none, or cannot be read."""
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError):
        return None
    try:
        return kind_of(parse_yaml(text) if path.suffix in _YAML else parse_json(text))
    except DocumentError:
        return kind_of_text(text)
