"""Arguments that are refused as they were typed, before they are converted.

An empty text is what a variable of the shell leaves that is not set; as a path it would stand for
the current folder. Python reads `1_0` as ten.
"""

import re
from collections.abc import Iterator, Sequence
from typing import get_args

from typer.core import TyperCommand, TyperGroup, TyperOption

from hpc_lpm.errors import InputError

_REST = "--"
"""What follows is for another program."""

_WITH_UNDERSCORES = re.compile(r"\s*[+-]?[0-9._eE+-]*_[0-9._eE+-]*\s*")


def check_arguments(command: object, arguments: Sequence[str]) -> None:
    """Check what was typed for a command.

    Args:
        command: the command, or a group of some of which the arguments name one.
        arguments: all that was typed behind the name of the program.

    Raises:
        InputError: naming the option that has no value, or a number with underscores.
    """
    ours = list(arguments)
    ours = ours[: ours.index(_REST)] if _REST in ours else ours
    numeric = {name for option in _options(command, ours) for name in _numeric_names(option)}
    before = None
    for argument in ours:
        option, equals, value = argument.partition("=")
        if not (argument.startswith("--") and equals):
            option, value = before or "", argument
        if not value:
            what = f"{option} is" if option.startswith("-") else "an argument is"
            raise InputError(
                f"{what} empty, as a variable of the shell is that is not set: give it a value, "
                "or leave it out."
            )
        if option in numeric and _WITH_UNDERSCORES.fullmatch(value):
            raise InputError(
                f"{option} is {value!r}, accepted is a number without underscores: write "
                f"{value.replace('_', '').strip()}."
            )
        before = argument


def _options(command: object, arguments: Sequence[str]) -> Iterator[TyperOption]:
    """Yield the options of the command that the arguments name."""
    names = iter(arguments)
    while isinstance(command, TyperGroup):
        command = next((command.commands[name] for name in names if name in command.commands), None)
    if isinstance(command, TyperCommand):
        yield from (each for each in command.params if isinstance(each, TyperOption))


def _numeric_names(option: TyperOption) -> list[str]:
    annotation = option.type_descriptor.annotation
    return option.opts if {int, float} & {annotation, *get_args(annotation)} else []
