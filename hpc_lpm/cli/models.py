"""`hpc-lpm models`: which models there are."""

from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import print_json, print_table
from hpc_lpm.models.registry import MODELS


@app.command("models")
def models_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models and their options."""
    if as_json:
        print_json(
            [
                {"name": name, "description": entry.description, "options": entry.options()}
                for name, entry in MODELS.items()
            ]
        )
        return
    rows = [
        [
            name,
            ", ".join(f"{key}={value}" for key, value in entry.options().items()),
            entry.description,
        ]
        for name, entry in MODELS.items()
    ]
    rows.append(["replay:PROFILE", "", "devices emulated by sleeping"])
    rows.append(["package.module:callable", "its keyword parameters", "your own, also from here"])
    print_table("Models: name,option=value,...", ["name", "options", "what it is"], rows)
