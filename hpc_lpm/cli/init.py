"""`hpc-lpm init`: starts campaigns in a folder of the user's own."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpc_lpm import __version__
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_DONE, EXIT_NOT_HELD
from hpc_lpm.cli.output import console, print_json
from hpc_lpm.errors import InputError

if TYPE_CHECKING:
    from hpc_lpm.study.folder import Comparison, Outcome


@app.command()
def init(
    folder: Annotated[
        Path | None, typer.Argument(help="new folder; with --diff that of a study, or this one")
    ] = None,
    here: Annotated[
        bool, typer.Option("--here", help="write the files that the current folder lacks")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="show what this version would write differently")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> int:
    """Start campaigns in a folder of your own, with a model, a data set and a campaign to edit.

    Nothing that is there is overwritten. With --diff nothing is written, and the exit code is 1 if
    something differs; `patch -p1` takes what is printed.
    """
    from hpc_lpm.study.folder import compare_study, complete_study, start_study

    if here and (diff or folder is not None):
        other = "--diff" if diff else str(folder)
        raise InputError(f"init was given --here and {other}, accepted is one: leave one out.")
    if diff:
        return _show_differences(folder or Path(), compare_study(folder or Path()), as_json)
    if folder is None and not here:
        raise InputError(
            "init was given no folder: name a new one, such as my-study, or add what the current "
            "one lacks with --here."
        )
    outcome = start_study(folder) if folder is not None else complete_study(Path())
    _show_outcome(folder or Path(), outcome, as_json)
    return EXIT_DONE


def _show_outcome(folder: Path, outcome: "Outcome", as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(folder), "version": __version__, **asdict(outcome)})
        return
    say = console().print
    place = "this folder" if folder == Path() else str(folder)
    if outcome.written:
        say(f"hpc-lpm {__version__} has written into {place}:", soft_wrap=True)
    else:
        say("Nothing is missing.")
    for name in outcome.written:
        say(f"  {name}")
    if outcome.kept:
        say(f"Kept as they were: {', '.join(outcome.kept)}.", soft_wrap=True)
    move = "" if folder == Path() else f"cd {shlex.quote(str(folder))}; "
    say(f"Next: {move}snakemake --cores 2", soft_wrap=True)


def _show_differences(folder: Path, found: "Comparison", as_json: bool) -> int:
    exit_code = EXIT_NOT_HELD if found.differences else EXIT_DONE
    if as_json:
        print_json({"folder": str(folder), "version": __version__, **asdict(found)})
        return exit_code
    versions = ", ".join(found.versions) or "an unknown version"
    count = len(found.differences)
    what = {0: "nothing", 1: "1 file"}.get(count, f"{count} files")
    console().print(
        f"Made by hpc-lpm {versions}; hpc-lpm {__version__} would write {what} differently.",
        soft_wrap=True,
    )
    if found.edited:
        console().print(f"Edited, and yours: {', '.join(found.edited)}.", soft_wrap=True)
    for text in found.differences.values():
        print(text, end="")
    return exit_code
