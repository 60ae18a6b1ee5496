"""The Typer application `hpc-lpm`, on which every command registers from a module of its own."""

import typer

app = typer.Typer(
    name="hpc-lpm",
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def _always_with_a_command() -> None:
    """Train deep networks layer by layer on K devices: profile, plan, train, report."""
    # Typer drops the command's name where only one is registered; a callback keeps it.
