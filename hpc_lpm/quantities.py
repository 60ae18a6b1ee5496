"""Durations and sizes as people type them: `90m`, `1h30m`, `1:30:00`, `4GiB`.

A number without a unit is in the unit that its field names. What can be read in two ways, such as
`1:30` or `4G`, is refused with both spellings.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Annotated, get_args

from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from hpc_lpm.typed_values import QUANTITY

_UNITS_OF_TIME = {
    "us": Fraction(1, 1_000_000),
    "ms": Fraction(1, 1000),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), Fraction(1)),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), Fraction(60)),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), Fraction(3600)),
    **dict.fromkeys(("d", "day", "days"), Fraction(86400)),
}
# Of a bounded number of digits: an exponent of a billion would fill the memory.
_DIGITS = r"[0-9]{1,18}"
_EXPONENT = r"(?:[eE][-+]?[0-9]{1,2})?"
_PART = re.compile(rf"({_DIGITS}(?:\.{_DIGITS})?)\s*([A-Za-z]+)\s*")
_CLOCK = re.compile(rf"(?:({_DIGITS})-)?({_DIGITS}):([0-9]{{2}}):([0-9]{{2}})")
_NUMBER = re.compile(rf"{_DIGITS}(?:\.[0-9]{{0,18}})?{_EXPONENT}|\.{_DIGITS}{_EXPONENT}")

_DECIMAL = {"kB": 1, "KB": 1, "MB": 2, "GB": 3, "TB": 4}
_BINARY = {"KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4}
_UNITS_OF_SIZE = {
    "B": 1,
    "bytes": 1,
    **{name: 1000**power for name, power in _DECIMAL.items()},
    **{name: 1024**power for name, power in _BINARY.items()},
}

TIME_FORMS = '90, "90m", "1h30m", "1:30:00" or "2d"'
SIZE_FORMS = '"512MB" or "4GiB"'
_OF_BYTES, _OF_MEBIBYTES = "a whole number of bytes", "a number of MiB"


def parse_seconds(text: str, unit: str = "s") -> Fraction:
    """Read a duration: a number of `unit`, `1h30m`, `H:MM:SS`, or `D-H:MM:SS` as Slurm writes it.

    Raises:
        ValueError: saying what is accepted, if it is no duration or can be read in two ways.
    """
    typed = text.strip()
    if _NUMBER.fullmatch(typed):
        return Fraction(typed) * _UNITS_OF_TIME[unit]
    if clock := _CLOCK.fullmatch(typed):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        if minutes > 59 or seconds > 59 or (clock[1] and hours > 23):
            raise ValueError(f"{typed!r} is no time of hours, minutes and seconds")
        return Fraction(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    if short := re.fullmatch(rf"({_DIGITS}):({_DIGITS})", typed):
        first, second = int(short[1]), int(short[2])
        raise ValueError(
            f'{typed!r} can mean two things: write "{first}h{second}m" or "{first}m{second}s"'
        )
    if slurm := re.fullmatch(rf"({_DIGITS})-({_DIGITS})(?::({_DIGITS}))?", typed):
        rest = f"{int(slurm[3])}m" if slurm[3] else ""
        raise ValueError(f'{typed!r} is not clear: write "{int(slurm[1])}d{int(slurm[2])}h{rest}"')
    return _sum_of_parts(typed)


def parse_bytes(text: str, plain: str = _OF_BYTES) -> int:
    """Read a size: a whole number of bytes, or a number with a unit such as `512MB` or `4GiB`.

    Args:
        text: what was typed.
        plain: what the user may type without a unit, in words.

    Raises:
        ValueError: saying what is accepted, if it is no size or can be read in two ways.
    """
    typed = text.strip()
    found = re.fullmatch(rf"({_NUMBER.pattern})\s*([A-Za-z]*)", typed)
    if found is None:
        raise ValueError(f"{typed!r} is no size, accepted is {plain}, {SIZE_FORMS}")
    number, unit = found.groups()
    known = _UNITS_OF_SIZE.get(unit or "B") or _in_lower_case(unit)
    if known is None:
        raise ValueError(_ambiguous_size(typed, number, unit, plain))
    size = Fraction(number) * known
    if size.denominator != 1:
        raise ValueError(f"{typed!r} is no whole number of bytes")
    return int(size)


@dataclass(frozen=True)
class Quantity:
    """Marks a settings field that takes a duration or a size as text, and says what it counts.

    Attributes:
        unit: a unit of time, such as `ms`, or `MiB`.
    """

    unit: str

    def spelled(self, value: float) -> str:
        """Return a value as people type it, such as `1h30m` for 90 minutes."""
        if self.unit not in _UNITS_OF_TIME:
            return f"{value:g} {self.unit}"
        left = Fraction(value) * _UNITS_OF_TIME[self.unit]
        parts = []
        for unit in ("d", "h", "m"):
            count, left = divmod(left, _UNITS_OF_TIME[unit])
            parts += [f"{count}{unit}"] if count else []
        if left >= 1 or not parts:
            small = "s" if left >= 1 else "ms"
            parts.append(f"{float(left / _UNITS_OF_TIME[small]):.6g}{small}")
        return "".join(parts)


def quantity_of(field: FieldInfo) -> Quantity | None:
    """Return what a settings field counts, None if it takes neither a duration nor a size."""
    marks = [*field.metadata, *getattr(field.annotation, "__metadata__", ())]
    for member in get_args(field.annotation):
        marks += getattr(member, "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, Quantity)), None)


def _in_lower_case(unit: str) -> int | None:
    # But not `Gb`, which is an abbreviation of gigabits.
    return {name.lower(): size for name, size in _UNITS_OF_SIZE.items()}.get(
        unit if unit == unit.lower() else ""
    )


def _ambiguous_size(typed: str, number: str, unit: str, plain: str) -> str:
    letter = unit[:1].upper()
    if letter in {"K", "M", "G", "T"} and unit[1:].lower() in {"", "b", "i", "ib"}:
        return (
            f'{typed!r} can mean two things: write "{number}{letter}iB" for powers of 1024, or '
            f'"{number}{"k" if letter == "K" else letter}B" for powers of 1000'
        )
    return f"{typed!r} has the unknown unit {unit!r}, accepted is {plain}, {SIZE_FORMS}"


def _sum_of_parts(typed: str) -> Fraction:
    total, end, before = Fraction(0), 0, None
    for part in _PART.finditer(typed):
        size = _UNITS_OF_TIME.get(part[2].lower())
        if part.start() != end or size is None or (before is not None and size >= before):
            break
        total, end, before = total + Fraction(part[1]) * size, part.end(), size
    if end == 0 or end != len(typed):
        raise ValueError(f"{typed!r} is no duration, accepted is {TIME_FORMS}")
    return total


def _read_in(
    unit: str, parse: Callable[[str], Fraction], *, whole: bool
) -> Callable[[object], object]:
    """Return a validator that turns text into a number of `unit` and leaves all else alone."""

    def read(value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            number = parse(value)
        except ValueError as error:
            raise PydanticCustomError(QUANTITY, "{why}", {"why": str(error)}) from None
        if whole and number.denominator != 1:
            why = f"{value!r} is no whole number of {unit}: write {ceil(number)}"
            raise PydanticCustomError(QUANTITY, "{why}", {"why": why})
        return int(number) if whole else float(number)

    return read


def _mebibytes(text: str) -> Fraction:
    if _NUMBER.fullmatch(text.strip()):
        return Fraction(text.strip())
    return Fraction(ceil(Fraction(parse_bytes(text, _OF_MEBIBYTES), 2**20)))


_Number = Annotated[float, Field(gt=0)]
_Whole = Annotated[int, Field(gt=0)]

Seconds = Annotated[
    float,
    Field(gt=0),
    BeforeValidator(
        _read_in("seconds", parse_seconds, whole=False), json_schema_input_type=_Number | str
    ),
    Quantity("s"),
]
"""A time in seconds, or as text with its units."""

Milliseconds = Annotated[
    float,
    Field(gt=0),
    BeforeValidator(
        _read_in("milliseconds", lambda text: parse_seconds(text, "ms") * 1000, whole=False),
        json_schema_input_type=_Number | str,
    ),
    Quantity("ms"),
]
"""A time in milliseconds, or as text with its units."""

Minutes = Annotated[
    int,
    Field(gt=0),
    BeforeValidator(
        _read_in("minutes", lambda text: parse_seconds(text, "m") / 60, whole=True),
        json_schema_input_type=_Whole | str,
    ),
    Quantity("m"),
]
"""Whole minutes, or a time as text with its units."""

Mebibytes = Annotated[
    int,
    Field(gt=0),
    BeforeValidator(_read_in("MiB", _mebibytes, whole=True), json_schema_input_type=_Whole | str),
    Quantity("MiB"),
]
"""Whole units of 2**20 bytes, or a size as text with its unit, rounded up to these."""
