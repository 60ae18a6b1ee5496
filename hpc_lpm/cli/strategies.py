"""`hpc-lpm strategies`: lists the strategies."""

from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import print_json, print_table
from hpc_lpm.engine.strategies.registry import STRATEGIES


@app.command()
def strategies(
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List the training strategies."""
    if json:
        print_json(
            [
                {
                    "name": strategy.name,
                    "description": strategy.description,
                    "needs_plan": strategy.needs_plan,
                    "pipelined": strategy.pipelined,
                    "available": strategy.available(),
                }
                for _, strategy in STRATEGIES.items()
            ]
        )
        return
    print_table(
        "strategies",
        ["name", "what it does", "needs a plan", "installed"],
        [
            [
                strategy.name,
                strategy.description,
                "yes" if strategy.needs_plan else "no",
                "yes" if strategy.available() else "no (run `make setup`)",
            ]
            for _, strategy in STRATEGIES.items()
        ],
    )
