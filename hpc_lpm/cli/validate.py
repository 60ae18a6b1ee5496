"""`hpc-lpm validate`: checks a campaign file before hours are spent on running it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import console, print_json, print_table
from hpc_lpm.errors import InputError


@app.command()
def validate(
    config: Annotated[Path | None, typer.Argument(help="campaign file (YAML)")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="print the JSON schema of campaign files instead")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Check a campaign file and list the trials of its matrix."""
    from hpc_lpm.campaign.absent import absent_contestants, check_installed, without_absent
    from hpc_lpm.campaign.config import campaign_schema
    from hpc_lpm.campaign.trials import trials_of
    from hpc_lpm.campaign.validation import read_checked_campaign

    if schema:
        print_json(campaign_schema())
        return
    if config is None:
        raise InputError("validate was given no campaign file: name one, e.g. config/quick.yaml.")
    campaign = read_checked_campaign(config)
    check_installed(campaign, str(config))
    absent = absent_contestants(campaign)
    trials = without_absent(campaign, trials_of(campaign))
    if as_json:
        print_json(
            {
                "campaign": campaign.name,
                "trials": [asdict(trial) for trial in trials],
                "absent": [asdict(entry) for entry in absent],
            }
        )
        return
    labelled = any(trial.contestant != trial.strategy for trial in trials)
    columns = ["number", "model", "dataset", "strategy", *(["contestant"] if labelled else [])]
    columns += ["planner", "ranks", "seed", "repeat"]
    rows = [
        ["" if (value := asdict(trial)[column]) is None else str(value) for column in columns]
        for trial in trials
    ]
    print_table(f"campaign {campaign.name}, in the order in which the trials run", columns, rows)
    for entry in absent:
        console().print(f"{entry.sentence()}.")
    console().print(f"{config} is valid: {len(trials)} trials.", soft_wrap=True)
