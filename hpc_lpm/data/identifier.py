"""Identifiers such as `resnet20,width=8` or `text:PATH,sequence=128`: a name with options."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpc_lpm.errors import InputError, closest

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


def accepted_options(
    factory: Callable[..., object], fixed: Mapping[str, object]
) -> dict[str, inspect.Parameter]:
    """Return the parameters of `factory` after its first, but for those that are `fixed`."""
    try:
        parameters = list(inspect.signature(factory, eval_str=True).parameters.values())
    except (ValueError, NameError):  # a builtin, or annotations that only a type checker sees
        return {}
    return {
        parameter.name: parameter for parameter in parameters[1:] if parameter.name not in fixed
    }


def convert_options(
    identifier: Identifier, factory: Callable[..., object], fixed: Mapping[str, object]
) -> dict[str, Any]:
    """Convert the options of `identifier` to the types that `factory` declares for them.

    Raises:
        InputError: if `factory` has no such option or the value is not of its type.
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
        annotation = accepted[option].annotation if option in named else inspect.Parameter.empty
        try:
            converted[option] = _convert(value, annotation)
        except ValueError:
            wanted = {int: "a whole number", float: "a number", bool: "true or false"}
            raise InputError(
                f"option {option!r} of {identifier.text!r} is {value!r}, accepted is "
                f"{wanted.get(annotation, 'another value')}."
            ) from None
    return converted


def _convert(value: str, annotation: object) -> object:
    if annotation is int:
        return int(value)
    if annotation is float:
        return float(value)
    if annotation is bool:
        return _to_bool(value)
    if annotation is inspect.Parameter.empty:
        return _guess(value)
    return value


def _to_bool(value: str) -> bool:
    if value.lower() not in {"true", "false"}:
        raise ValueError(value)
    return value.lower() == "true"


def _guess(value: str) -> object:
    """Read a value of undeclared type as the first of int, float, bool and str that fits."""
    for convert in (int, float, _to_bool):
        try:
            return convert(value)
        except ValueError:
            continue
    return value
