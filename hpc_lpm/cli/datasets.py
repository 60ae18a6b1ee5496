"""`hpc-lpm datasets`: list the data sets."""

from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.listing import print_registry
from hpc_lpm.data.registry import DATASETS


@app.command("datasets")
def datasets_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the data sets and their options."""
    print_registry(DATASETS, "Data sets", as_json=as_json)
