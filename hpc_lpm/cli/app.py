"""The Typer application of `hpc-lpm`, on which a module for each command registers it."""

import typer

app = typer.Typer(
    name="hpc-lpm",
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def _always_with_a_command() -> None:
    """Train deep networks layer by layer on K devices: profile, plan, train, report."""
    # Typer drops the name of a command that is the only one registered; a callback keeps it.
