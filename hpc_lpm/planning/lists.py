"""Options of a plan that are lists: given as such, or as texts in which commas separate them."""

from collections.abc import Sequence
from typing import TypeVar

from hpc_lpm.documents import plain_number
from hpc_lpm.errors import InputError
from hpc_lpm.quantities import parse_bytes

Name = TypeVar("Name", bound=int | str)


def memory_limit_of(
    limit: int | str | Sequence[int | str] | None,
) -> int | tuple[int, ...] | None:
    """Return memory limits in bytes: one for all stages, or one for each.

    Raises:
        InputError: if they are not sizes above 0.
    """
    if limit is None:
        return None
    listed = limit.split(",") if isinstance(limit, str) else limit
    parts = [listed] if isinstance(listed, int) else listed
    try:
        limits = tuple(part if isinstance(part, int) else parse_bytes(part) for part in parts)
    except ValueError as error:
        raise InputError(f"--memory-limit is {limit!r}: {error}.") from None
    if not limits or min(limits) <= 0:
        raise InputError(
            f"--memory-limit is {limit!r}, accepted is a size above 0 such as 4294967296 or "
            "4GiB, or one for each stage separated by commas."
        )
    return limits if len(limits) > 1 else limits[0]


def speeds_of(speeds: str | Sequence[float] | None) -> tuple[float, ...] | None:
    """Return the speed of every stage's device.

    Raises:
        InputError: if it is not numbers.
    """
    if speeds is None:
        return None
    try:
        if isinstance(speeds, str):
            return tuple(map(plain_number, speeds.split(",")))
        return tuple(map(float, speeds))
    except (TypeError, ValueError):
        raise InputError(
            f"--speeds is {speeds!r}, accepted are numbers separated by commas, one for each stage."
        ) from None


def names_of(option: str, names: str | Sequence[Name] | None) -> tuple[Name | str, ...]:
    """Return the entries of `--cuts` or `--cut-only-at`.

    Raises:
        InputError: if there is nothing before, between or behind commas.
    """
    if names is None:
        return ()
    if not isinstance(names, str):
        return tuple(names)
    listed = tuple(part.strip() for part in names.split(","))
    if not all(listed):
        raise InputError(
            f"{option} is {names!r}, accepted are names separated by commas: correct the list."
        )
    return listed
