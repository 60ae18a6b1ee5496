"""Identifiers of models and data sets: `name`, `name:PATH` or `module:callable`, with options.

Options follow as `,option=value`, as in `resnet20,width=8` or `text:PATH,sequence=128`. A path is
taken by the few names that are made for one; before anything else, a colon follows a module.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Protocol, TypeVar, Union, get_args, get_origin

from hpc_lpm.documents import parse_scalar
from hpc_lpm.errors import InputError, closest
from hpc_lpm.extensions import Registry

_OPTIONS = re.compile(r"(?:,[A-Za-z_]\w*=[^,]*)*$")


@dataclass(frozen=True)
class Identifier:
    """A parsed identifier: `name`, then `:argument` if there is one, then the options as text."""

    text: str
    name: str
    argument: str | None
    options: dict[str, str]


def parse_identifier(text: str) -> Identifier:
    """Parse `name[:argument][,option=value ...]`; the argument may hold commas, values may not.

    Raises:
        InputError: if the name is empty, an option lacks its value or is given twice.
    """
    found = _OPTIONS.search(text)
    base, tail = (text[: found.start()], found.group()) if found else (text, "")
    name, colon, argument = base.partition(":")
    stray = "" if colon else name.partition(",")[2]
    if not name or stray or "," in name:
        what = f"the part {stray!r}" if stray else "an empty part"
        raise InputError(
            f"identifier {text!r} has {what}, accepted is name,option=value,option=value."
        )
    options: dict[str, str] = {}
    for part in tail.split(",")[1:]:
        option, _, value = part.partition("=")
        if option in options:
            raise InputError(f"identifier {text!r} gives option {option!r} twice, give it once.")
        options[option] = value
    return Identifier(text, name, argument if colon else None, options)


class NamedEntry(Protocol):
    """What the entries of a registry that identifiers refer to have in common."""

    @property
    def takes_path(self) -> bool:
        """Tell if the name is followed by a path."""


EntryT = TypeVar("EntryT", bound=NamedEntry)


def find_entry(registry: Registry[EntryT], identifier: Identifier) -> EntryT:
    """Return the entry that an identifier refers to.

    Raises:
        InputError: if there is none, its path is missing, or it takes no path.
    """
    name, argument, kind = identifier.name, identifier.argument, registry.kind
    known = registry.named(name) if argument is None or name in registry.names() else None
    if known is not None and known.takes_path:
        if not argument:
            raise InputError(
                f"{kind} {identifier.text!r} is not complete, accepted is {name}:PATH: name the "
                "file or folder that it is made from."
            )
        return known
    if argument is None:
        return registry.named(name)
    try:
        return registry.named(f"{name}:{argument}")
    except InputError as error:
        if not isinstance(error.__cause__, ModuleNotFoundError):
            raise
        if known is not None:
            raise InputError(
                f"{kind} {identifier.text!r} has a path where none is taken, accepted is {name} "
                f"without a path, with options as in {name},option=value."
            ) from error
        hint = closest(name.lower(), registry.names())
        if not hint or "/" in name or "." in name:
            raise
        raise InputError(
            f"{kind} {name!r} is unknown{hint}, and there is no module {name!r}: "
            f"accepted are {', '.join(registry.names())}, and module:name for one of your own."
        ) from error


def accepted_options(
    factory: Callable[..., object], fixed: Mapping[str, object]
) -> dict[str, inspect.Parameter]:
    """Return the parameters of `factory` after its first, except those that are `fixed`."""
    try:
        parameters = list(_signature(factory).parameters.values())
    except ValueError:  # a builtin without a signature
        return {}
    return {
        parameter.name: parameter
        for parameter in parameters[1:]
        if parameter.name not in fixed and parameter.kind is not inspect.Parameter.VAR_POSITIONAL
    }


def option_defaults(
    factory: Callable[..., object], fixed: Mapping[str, object]
) -> dict[str, object]:
    """Return the named options of `factory` with their defaults, None where there is none."""
    return {
        name: _printable(parameter.default)
        for name, parameter in accepted_options(factory, fixed).items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def convert_options(
    identifier: Identifier, factory: Callable[..., object], fixed: Mapping[str, object]
) -> dict[str, Any]:
    """Convert the options of `identifier` to the types that `factory` declares for them.

    Raises:
        InputError: if `factory` has no such option, the value is not of its type, or an option
            without a default is missing.
    """
    accepted = accepted_options(factory, fixed)
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
    named = [name for name, p in accepted.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    converted: dict[str, Any] = {}
    for option, value in identifier.options.items():
        if option not in named and not open_ended:
            offer = f"accepted are {', '.join(named)}" if named else "none is accepted"
            raise InputError(
                f"{identifier.text!r} has the unknown option {option!r}"
                f"{closest(option, named)} ({offer})."
            )
        declared = accepted[option].annotation if option in named else inspect.Parameter.empty
        annotation = _without_none(declared)
        try:
            converted[option] = _convert(value, annotation)
        except ValueError:
            hint = closest(value, _choices(annotation))
            raise InputError(
                f"option {option!r} of {identifier.text!r} is {value!r}"
                f"{f'{hint}:' if hint else ','} accepted is {_wanted(annotation)}."
            ) from None
    for option in named:
        if accepted[option].default is inspect.Parameter.empty and option not in converted:
            raise InputError(
                f"{identifier.text!r} lacks the option {option!r}, which has no default: write "
                f"{identifier.text},{option}=value."
            )
    return converted


def require_at_least(owner: str, option: str, value: int, least: int) -> None:
    """Check the value of a whole-number option of the model or data set `owner`.

    Raises:
        InputError: if `value` is below `least`.
    """
    if value < least:
        raise InputError(
            f"option {option!r} of {owner} is {value}, accepted are whole numbers from {least}."
        )


def user_path(text: str) -> Path:
    """Return the path that a user typed, with the user's home folder for a leading `~`."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user: a name that begins with ~
        return Path(text)


def _signature(factory: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(factory, eval_str=True)
    except NameError:  # annotations that only a type checker can resolve
        return inspect.signature(factory)


def _without_none(annotation: Any) -> Any:
    """Return T where the annotation is `T | None`, else the annotation itself."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    members = [member for member in get_args(annotation) if member is not NoneType]
    return members[0] if len(members) == 1 else annotation


def _choices(annotation: object) -> list[str]:
    return [str(choice) for choice in get_args(annotation)]


def _wanted(annotation: object) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(_choices(annotation))
    kinds: dict[object, str] = {int: "a whole number", float: "a number", bool: "true or false"}
    return kinds.get(annotation, "another value")


def _convert(value: str, annotation: object) -> object:
    if get_origin(annotation) is Literal:
        return get_args(annotation)[_choices(annotation).index(value)]
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return _guess(value)
    conversions: dict[object, Callable[[str], object]]
    conversions = {int: _to_whole, float: _to_number, bool: _to_bool, Path: user_path}
    return conversions.get(annotation, str)(value)


def _to_bool(value: str) -> bool:
    if value.lower() not in {"true", "false"}:
        raise ValueError(value)
    return value.lower() == "true"


def _to_whole(value: str) -> int:
    number = parse_scalar(value.strip())
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(value)
    return number


def _to_number(value: str) -> float:
    number = parse_scalar(value.strip())
    if isinstance(number, bool) or not isinstance(number, int | float) or not isfinite(number):
        raise ValueError(value)
    return float(number)


def _guess(value: str) -> object:
    """Read a value of undeclared type as a number, true or false if it is one, else as text."""
    if value.lower() in {"true", "false"}:
        return _to_bool(value)
    scalar = parse_scalar(value)
    return value if scalar is None else scalar


def _printable(default: object) -> object:
    if default is inspect.Parameter.empty:
        return None
    return default if isinstance(default, bool | int | float | str | None) else str(default)
