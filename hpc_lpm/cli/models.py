"""`hpc-lpm models`: list the models."""

from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.listing import print_registry
from hpc_lpm.models.registry import MODELS


@app.command("models")
def models_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models and their options."""
    print_registry(MODELS, "Models", as_json=as_json)
