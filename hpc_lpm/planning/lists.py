"""Options of a plan that are lists: given as such, or as texts in which commas separate them."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from hpc_lpm.documents import plain_number
from hpc_lpm.errors import InputError
from hpc_lpm.quantities import SIZE_FORMS, parse_bytes

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
    try:
        limits = tuple(map(_bytes_of, _entries(limit)))
    except ValueError as error:
        raise InputError(f"--memory-limit is {limit!r}: {error}.") from None
    if not limits or min(limits) <= 0:
        raise InputError(
            f"--memory-limit is {limit!r}, accepted is a size above 0 such as 4294967296 or "
            "4GiB, or one for each stage separated by commas."
        )
    return limits if len(limits) > 1 else limits[0]


def _entries(given: object) -> Iterable[object]:
    """Return the entries of a list, or of a text with commas; what is neither is one entry."""
    if isinstance(given, str):
        return given.split(",")
    return given if isinstance(given, Iterable) else (given,)


def _bytes_of(part: object) -> int:
    if isinstance(part, int):
        return part
    if isinstance(part, str):
        return parse_bytes(part)
    raise ValueError(f"{part!r} is no size, accepted is a whole number of bytes, {SIZE_FORMS}")


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
        InputError: if there is nothing before, between or behind commas, or a script gives what is
            no list of names and positions.
    """
    if names is None:
        return ()
    if not isinstance(names, str):
        is_list = isinstance(names, Iterable)
        given = tuple(names) if is_list else ()
        if not is_list or not all(isinstance(each, int | str) for each in given):
            raise InputError(
                f"{option} is {names!r}, accepted is a list, such as ['block1', 'block2'], or a "
                "text of names separated by commas: give one of these."
            )
        return given
    listed = tuple(part.strip() for part in names.split(","))
    if not all(listed):
        raise InputError(
            f"{option} is {names!r}, accepted are names separated by commas: correct the list."
        )
    return listed
