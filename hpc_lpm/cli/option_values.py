"""Makes command-line options of settings fields, and settings of the options that are given."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, cast, get_origin

import typer
from rich.markup import escape

from hpc_lpm.documents import parse_scalar
from hpc_lpm.errors import InputError
from hpc_lpm.options import ArgumentValue, DescribedField
from hpc_lpm.quantities import quantity_of


def argument_values(option: str, texts: list[str]) -> dict[str, ArgumentValue]:
    """Parse the arguments of an option, such as `nesterov=true`, `alpha=0.9` or `mode=max`.

    Raises:
        InputError: if an option has no name or no value, or is given twice.
    """
    options: dict[str, ArgumentValue] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value:
            raise InputError(
                f"{option} is {text!r}, accepted is NAME=VALUE with true, false, a number, several "
                "separated by commas, or a text."
            )
        if name in options:
            raise InputError(f"{option} gives {name!r} twice, give it once.")
        options[name] = _value(value)
    return options


def optimizer_steps(option: str, text: str | None) -> list[int]:
    """Parse the step numbers of an option such as `100,200`; an absent option has none.

    Raises:
        InputError: if the text is anything else.
    """
    if text is None:
        return []
    steps = [parse_scalar(part.strip()) for part in text.split(",")]
    if not all(type(step) is int for step in steps):
        raise InputError(
            f"{option} is {text!r}, accepted are whole numbers of optimizer steps separated "
            "by commas, such as 100,200."
        )
    return cast(list[int], steps)


def command_parameters(fields: Iterable[DescribedField]) -> list[inspect.Parameter]:
    """Return the parameters of a Typer command that takes these fields as options.

    The value None stands for an option that was not given.
    """
    parameters = []
    for field in fields:
        kind = _typed(field)
        option = typer.Option(
            _declared(field),
            help=_help(field),
            metavar=field.option.metavar,
            show_default=False,
            rich_help_panel=field.option.panel,
        )
        parameters.append(
            inspect.Parameter(
                parameter_name(field),
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind, option],
            )
        )
    return parameters


def parameter_name(field: DescribedField) -> str:
    """Return the name of the parameter that holds a field's value."""
    return "__".join(field.path)


def document_of(fields: Iterable[DescribedField], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a settings document with the options that were given.

    Raises:
        InputError: if the text of an option is not of the form that it takes.
    """
    document: dict[str, Any] = {}
    for field in fields:
        value = given.get(parameter_name(field))
        if value is None or value == []:
            continue
        annotation = field.info.annotation
        if get_origin(annotation) is tuple and annotation != tuple[str, ...]:
            value = optimizer_steps(field.option_name, value)
        elif get_origin(annotation) is dict:
            value = argument_values(field.option_name, value)
        section = document
        for name in field.path[:-1]:
            section = section.setdefault(name, {})
        section[field.path[-1]] = value
    return document


def _typed(field: DescribedField) -> Any:
    """Return the type that Typer converts a value to; settings check literals themselves."""
    annotation = field.info.annotation
    if get_origin(annotation) is dict or annotation == tuple[str, ...]:
        return list[str] | None
    if quantity_of(field.info):
        return str | None
    for kind in (bool, int, float, Path):
        if annotation in (kind, kind | None):
            return kind | None
    return str | None


def _declared(field: DescribedField) -> str:
    """Return the option's declaration, with a negative form where not given differs from off."""
    name = field.option_name
    if field.info.annotation == bool | None:
        return f"{name}/--no-{name.removeprefix('--')}"
    return name


def _help(field: DescribedField) -> str:
    default = field.info.default
    told = isinstance(default, int | float | str) and not isinstance(default, bool)
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    # A strategy of the user's own may have brackets there, which Typer would take for markup.
    return escape(f"{field.info.description}{f' ({shown} by default)' if told else ''}")


def _value(text: str) -> ArgumentValue:
    parts = [parse_scalar(part) for part in text.split(",")]
    numbers = [
        part for part in parts if isinstance(part, int | float) and not isinstance(part, bool)
    ]
    if len(parts) > 1 and len(numbers) == len(parts):
        return tuple(float(number) for number in numbers)
    (first, *others) = parts
    return first if not others and isinstance(first, bool | int | float) else text
