"""`hpc-lpm compare`: tells whether a change made things better or worse, or is inconclusive."""

from pathlib import Path
from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_DONE, EXIT_NOT_HELD
from hpc_lpm.cli.output import console, print_json


@app.command()
def compare(
    folder_a: Annotated[Path, typer.Argument(help="folder of the first campaign")],
    folder_b: Annotated[Path, typer.Argument(help="folder of the second, to be judged")],
    trials: Annotated[bool, typer.Option("--trials", help="also list every common trial")] = False,
    html: Annotated[Path | None, typer.Option(help="also write an HTML page here")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, trials included")] = False,
) -> int:
    """Compare two campaigns; exit 1 where what the second expects does not hold.

    The exit code is also 1 if a result of either is damaged or is that of other settings.
    """
    from hpc_lpm.campaign.comparison.compare import compare_folders
    from hpc_lpm.campaign.pages import write_comparison_page
    from hpc_lpm.cli.compare_text import show_comparison

    comparison = compare_folders(folder_a, folder_b)
    if html is not None:
        write_comparison_page(comparison, html)
    if as_json:
        print_json(comparison.document())
    else:
        show_comparison(comparison, with_trials=trials)
        if html is not None:
            console().print(f"Page in {html}.", soft_wrap=True)
    refused = [side.refused_sentence() for side in (comparison.a, comparison.b)]
    for sentence in filter(None, refused):
        typer.echo(f"hpc-lpm: {sentence}", err=True)
    return EXIT_NOT_HELD if any(refused) or not comparison.held else EXIT_DONE
