"""What becomes of a fault that nothing in the toolkit expects: a sentence, and a file to report."""

import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path

from hpc_lpm.ranks import rank_from_environment

EXIT_UNEXPECTED = 70
"""The code that BSD's sysexits have for a fault of the program itself."""

_NAMED = ("hpc-lpm", "torch", "deepspeed", "mpi4py", "snakemake")
_LONGEST = 300


def explain(error: BaseException, arguments: Sequence[str]) -> str:
    """Write the traceback of an error to a file, and return a sentence that names it."""
    said = " ".join(str(error).split()).rstrip(".")[:_LONGEST]
    what = f"{type(error).__name__}{': ' if said else ''}{said}"
    file = _write(error, arguments)
    if file is None:
        return f"a fault that was not expected, {what}: run the command with --debug to see where."
    return (
        f"a fault that was not expected, {what}: {file} says where; if it is in code of yours, "
        "mend it there, else report it to the authors of hpc-lpm with that file."
    )


def _write(error: BaseException, arguments: Sequence[str]) -> Path | None:
    """Write the file into the current folder, or where temporary files go; None if it fails."""
    rank = rank_from_environment()
    name = f"hpc-lpm-fault-{datetime.now():%Y%m%d-%H%M%S}-{rank}-{os.getpid()}.txt"
    lines = [
        f"command: hpc-lpm {shlex.join(arguments)}",
        f"rank: {rank} on {platform.node()}",
        f"system: {platform.platform()}, Python {platform.python_version()} at {sys.executable}",
        *(f"{package}: {_version(package)}" for package in _NAMED),
        "",
        "".join(traceback.format_exception(error)),
    ]
    with suppress(OSError):
        path = Path.cwd() / name
        with path.open("x", encoding="utf-8") as stream:
            stream.write("\n".join(lines))
        return path
    with suppress(OSError):  # others can write there too, and must not choose what is written to
        descriptor, file = tempfile.mkstemp(prefix=f"{Path(name).stem}-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write("\n".join(lines))
        return Path(file)
    return None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
