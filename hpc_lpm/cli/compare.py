"""`hpc-lpm compare`: did a change make things better, worse, or can nobody tell."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_NOT_HELD
from hpc_lpm.cli.output import console, print_json, print_table


@app.command()
def compare(
    folder_a: Annotated[Path, typer.Argument(help="folder of the first campaign")],
    folder_b: Annotated[Path, typer.Argument(help="folder of the second, which is judged")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> int:
    """Compare two campaigns; exit 1 where what the second expects does not hold."""
    from hpc_lpm.campaign.compare import compare_summaries
    from hpc_lpm.campaign.expectations import judge
    from hpc_lpm.campaign.folder import CampaignFolder
    from hpc_lpm.campaign.results import load_results

    summary_b = load_results(folder_b).summary
    comparison = compare_summaries(load_results(folder_a).summary, summary_b)
    verdicts = judge(CampaignFolder(folder_b).read_campaign(), summary_b)
    held = all(verdict.held for verdict in verdicts)
    if as_json:
        expectations = [{"held": v.held, "sentence": v.sentence()} for v in verdicts]
        print_json(asdict(comparison) | {"expectations": expectations, "held": held})
        return 0 if held else EXIT_NOT_HELD
    rows = [
        [
            change.contestant,
            change.metric,
            f"{change.ratio:.3f}",
            "" if change.low is None else f"{change.low:.3f} to {change.high:.3f}",
            f"{change.runs_a} and {change.runs_b}",
            change.verdict,
        ]
        for change in comparison.changes
    ]
    columns = ["contestant", "metric", "B / A", "95 % interval", "runs", "verdict"]
    print_table(f"from {folder_a} (A) to {folder_b} (B)", columns, rows)
    same = comparison.same_weights
    console().print(f"{sum(same.values())} of {len(same)} common trials ended in the same weights.")
    for name, only in (("A", comparison.only_in_a), ("B", comparison.only_in_b)):
        if only:
            console().print(f"only in {name}: {', '.join(only)}")
    for verdict in verdicts:
        console().print(verdict.sentence())
    return 0 if held else EXIT_NOT_HELD
