"""`hpc-lpm datasets`: which data sets there are."""

from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import print_json, print_table
from hpc_lpm.data.registry import DATASETS


@app.command("datasets")
def datasets_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the data sets and their options."""
    if as_json:
        print_json(
            [
                {"name": name, "description": entry.description, "options": entry.options()}
                for name, entry in DATASETS.items()
            ]
        )
        return
    rows = [
        [
            name,
            ", ".join(f"{key}={value}" for key, value in entry.options().items()),
            entry.description,
        ]
        for name, entry in DATASETS.items()
    ]
    print_table("Data sets: name,option=value,...", ["name", "options", "what it is"], rows)
