"""Describes every command and option of the Typer application as Markdown."""

import inspect
from enum import Enum
from typing import Any, get_args

from markdown_parts import code, table
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.main import get_command

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register


def application() -> TyperGroup:
    """Return the application with all of its commands registered."""
    register([])
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def command_pages() -> str:
    """Return a section for each command, those that only the Snakefile calls last."""
    commands = application().commands
    groups = {name: found for name, found in commands.items() if isinstance(found, TyperGroup)}
    sections = [
        _section(name, command) for name, command in sorted(commands.items()) if name not in groups
    ]
    for name, group in groups.items():
        sections.append(f"## `hpc-lpm {name}`\n\n{_prose(group.help)}")
        sections += [
            _section(f"{name} {inner}", command, level=3)
            for inner, command in group.commands.items()
        ]
    return "\n\n".join(sections)


def _section(name: str, command: Any, level: int = 2) -> str:
    parts = [f"{'#' * level} `hpc-lpm {name}`", _prose(command.help), _usage(name, command)]
    shown = [parameter for parameter in command.params if not parameter.hidden]
    panels: dict[str, list[Any]] = {}
    for parameter in shown:
        panels.setdefault(parameter.rich_help_panel or "", []).append(parameter)
    for panel, parameters in panels.items():
        if panel:
            parts.append(f"**{panel}**")
        rows = [[_name(one), _default(one), _prose(one.help)] for one in parameters]
        parts.append(table(["option", "default", "meaning"], rows))
    return "\n\n".join(part for part in parts if part)


def _usage(name: str, command: TyperCommand) -> str:
    required = [
        one.opts[0] + f" {_metavar(one)}"
        for one in command.params
        if one.required and not isinstance(one, TyperArgument)
    ]
    arguments = [_argument(one) for one in command.params if isinstance(one, TyperArgument)]
    words = ["hpc-lpm", name, *arguments, *required, "[OPTIONS]"]
    return "```text\n" + " ".join(words) + "\n```"


def _argument(argument: TyperArgument) -> str:
    shown = argument.metavar or argument.opts[0].upper()
    return shown if argument.required else f"[{shown}]"


def _name(parameter: Any) -> str:
    if isinstance(parameter, TyperArgument):
        return code(_argument(parameter))
    names = [*parameter.opts, *parameter.secondary_opts]
    metavar = _metavar(parameter)
    return ", ".join(code(f"{name} {metavar}".strip()) for name in names)


def _metavar(parameter: Any) -> str:
    """Return what stands for the value of an option, nothing for a switch."""
    if parameter.is_flag:
        return ""
    if parameter.metavar:
        return str(parameter.metavar)
    kinds = _kinds(parameter.type_descriptor.annotation)
    choices = [kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, Enum)]
    if choices:
        return "|".join(str(member.value) for member in choices[0])
    texts = [kind for kind in kinds if isinstance(kind, str)]
    if texts:
        return "|".join(texts)
    names = {"int": "INTEGER", "float": "NUMBER", "str": "TEXT"}
    return names.get(getattr(kinds[0], "__name__", ""), "PATH") if kinds else "TEXT"


def _kinds(annotation: Any) -> list[Any]:
    """Return the types, or the texts of a Literal, that an annotation is made of."""
    inner = get_args(annotation)
    if not inner:
        return [] if annotation is type(None) else [annotation]
    return [kind for part in inner for kind in _kinds(part)]


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if default is None or default is False or callable(default) or default == ():
        return ""
    return code("on" if default is True else getattr(default, "value", default))


def _prose(text: str | None) -> str:
    return inspect.cleandoc(text or "").strip()
