"""`hpc-lpm report`: writes tables, figures and the HTML page of a campaign."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import console, print_json, print_table


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="folder of a campaign, e.g. results/quick")],
    as_json: Annotated[bool, typer.Option("--json", help="print the statistics as JSON")] = False,
) -> None:
    """Write summary, statistics, figures and report.html from the finished runs."""
    from hpc_lpm.campaign.report import write_report

    outcome = write_report(folder)
    if as_json:
        records = outcome.statistics.to_json(orient="records")
        print_json(
            {
                "report": str(outcome.path),
                "headline": outcome.headline,
                "absent": [asdict(absent) for absent in outcome.absent],
                "missing": [missing.trial.name for missing in outcome.missing],
                "statistics": json.loads(records),
            }
        )
        return
    for race in outcome.races:
        print_table(f"{race.title}, medians over runs and pairs of runs", race.columns, race.rows)
        console().print(race.sentence)
    if not outcome.races:
        console().print(outcome.headline)
    for absent in outcome.absent:
        console().print(f"{absent.sentence()}.")
    for missing in outcome.missing:
        console().print(f"missing: {missing.trial.name}: {missing.reason}", soft_wrap=True)
    console().print(f"Report in {outcome.path}.", soft_wrap=True)
