"""`hpc-lpm planners`: which planners there are."""

from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import print_json, print_table
from hpc_lpm.planning.planners.registry import PLANNERS


@app.command("planners")
def planners_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the planners."""
    rows = [[planner.name, planner.description] for planner in PLANNERS.values()]
    if as_json:
        print_json([{"name": name, "description": description} for name, description in rows])
        return
    print_table("Planners", ["name", "how it cuts"], rows)
