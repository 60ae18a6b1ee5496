"""The `hpc-lpm` command: one module a command, all registered on one Typer application."""

import typer

app = typer.Typer(
    name="hpc-lpm",
    help="Train deep networks layer by layer on K devices: profile, plan, train, report.",
    pretty_exceptions_enable=False,
    add_completion=False,
)
