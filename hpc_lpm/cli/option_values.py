"""Options of a command made from the fields of settings, and settings from what was given."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer

from hpc_lpm.errors import InputError
from hpc_lpm.options import DescribedField

OptionValue = bool | int | float | tuple[float, ...]


def optimizer_options(texts: list[str]) -> dict[str, OptionValue]:
    """Return the options of texts such as `nesterov=true`, `alpha=0.9` or `betas=0.9,0.95`.

    Raises:
        InputError: if one of them has no name, no value, or is given twice.
    """
    options: dict[str, OptionValue] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            read = _value(value)
        except ValueError:
            read = None
        if not name or read is None:
            raise InputError(
                f"--optimizer-option is {text!r}, accepted is NAME=VALUE with true, false, a "
                "number, or several separated by commas."
            )
        if name in options:
            raise InputError(f"--optimizer-option gives {name!r} twice, give it once.")
        options[name] = read
    return options


def optimizer_steps(option: str, text: str | None) -> list[int]:
    """Return the whole numbers of an option such as `100,200`; none without a text.

    Raises:
        InputError: if it is something else.
    """
    if text is None:
        return []
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"{option} is {text!r}, accepted are whole numbers of optimizer steps separated "
            "by commas, such as 100,200."
        ) from None


def command_parameters(fields: Iterable[DescribedField]) -> list[inspect.Parameter]:
    """Return the parameters of a Typer command that takes these fields as options.

    None stands for an option that was not given.
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
    """Return the settings document of the options that were given.

    Raises:
        InputError: if the text of an option is not of the form that it takes.
    """
    document: dict[str, Any] = {}
    for field in fields:
        value = given.get(parameter_name(field))
        if value is None or value == []:
            continue
        annotation = field.info.annotation
        if get_origin(annotation) is tuple:
            value = optimizer_steps(field.option_name, value)
        elif get_origin(annotation) is dict:
            value = optimizer_options(value)
        section = document
        for name in field.path[:-1]:
            section = section.setdefault(name, {})
        section[field.path[-1]] = value
    return document


def _typed(field: DescribedField) -> Any:
    """Return the type by which Typer reads an option; Literals are checked with the settings."""
    annotation = field.info.annotation
    if get_origin(annotation) is dict:
        return list[str] | None
    for kind in (bool, int, float, Path):
        if annotation in (kind, kind | None):
            return kind | None
    return str | None


def _declared(field: DescribedField) -> str:
    """Return the option, with its negative where not given, on and off are three things."""
    name = field.option_name
    if field.info.annotation == bool | None:
        return f"{name}/--no-{name.removeprefix('--')}"
    return name


def _help(field: DescribedField) -> str:
    default = field.info.default
    told = isinstance(default, int | float | str) and not isinstance(default, bool)
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    return f"{field.info.description}{f' ({shown} by default)' if told else ''}"


def _value(text: str) -> OptionValue:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if "," in text:
        return tuple(float(part) for part in text.split(","))
    try:
        return int(text)
    except ValueError:
        return float(text)
