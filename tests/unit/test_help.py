"""The help of every command can be read in 80 columns: no name of an option is cut."""

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register

register([])


def commands(group: TyperGroup, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        path = (*prefix, name)
        found += commands(command, path) if isinstance(command, TyperGroup) else [path]
    return found


def root() -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def options_of(path: tuple[str, ...]) -> list[str]:
    command: object = root()
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    names = [name for each in command.params for name in (*each.opts, *each.secondary_opts)]  # type: ignore[attr-defined]
    return [name for name in names if name.startswith("--")]


@pytest.mark.parametrize("path", commands(root()), ids=" ".join)
def test_no_option_is_cut_in_80_columns(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert shown.exit_code == 0
    words = set(shown.stdout.replace("│", " ").split())
    assert not [name for name in options_of(path) if name not in words]
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "…" not in shown.stdout


def test_a_command_that_is_registered_again_takes_its_own_place() -> None:
    before = len(app.registered_commands)
    register(["train", "--strategy", "sequential"])
    register([])
    assert len(app.registered_commands) == before
