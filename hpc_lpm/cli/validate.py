"""`hpc-lpm validate`: checks a campaign file before hours are spent on running it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import console, print_json, print_table
from hpc_lpm.errors import InputError
from hpc_lpm.options import DescribedField
from hpc_lpm.quantities import Quantity, quantity_of

if TYPE_CHECKING:
    from hpc_lpm.campaign.steps import Steps
    from hpc_lpm.campaign.trials import Trial


@app.command()
def validate(
    config: Annotated[Path | None, typer.Argument(help="campaign file (YAML)")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="print the JSON schema of campaign files instead")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Check a campaign file and list the trials of its matrix, with their resources and times."""
    from hpc_lpm.campaign.absent import check_installed
    from hpc_lpm.campaign.config import campaign_schema
    from hpc_lpm.campaign.folder import CampaignFolder
    from hpc_lpm.campaign.resources import check_leaves_time
    from hpc_lpm.campaign.steps import Steps
    from hpc_lpm.campaign.validation import read_checked_campaign
    from hpc_lpm.campaign.workflow import options_of_profile_in
    from hpc_lpm.cluster.site import Site

    if schema:
        print_json(campaign_schema())
        return
    if config is None:
        raise InputError("validate was given no campaign file: name one, e.g. config/quick.yaml.")
    campaign = read_checked_campaign(config)
    check_installed(campaign, str(config))
    check_leaves_time(campaign.resources, options_of_profile_in(Path()))
    Site.read(Path()).check_launcher(campaign.launcher.mpi)
    steps = Steps(campaign, CampaignFolder(Path("results") / campaign.name))
    trials = list(steps.trials.values())
    if as_json:
        print_json(
            {
                "campaign": campaign.name,
                "trials": [_document(steps, trial) for trial in trials],
                "absent": [asdict(entry) for entry in steps.absent],
            }
        )
        return
    _show(steps, trials)
    for entry in steps.absent:
        console().print(f"{entry.sentence()}.")
    console().print(f"{config} is valid: {len(trials)} trials.", soft_wrap=True)


def _document(steps: "Steps", trial: "Trial") -> dict[str, object]:
    return {
        **asdict(trial),
        "resources": {
            "threads": steps.settings(trial.name).threads,
            "nodes": steps.campaign.resources.nodes,
            **asdict(steps.asked_resources(trial.name)),
        },
        "times": {".".join(field.path): value for field, _, value in _times(steps, trial)},
    }


def _show(steps: "Steps", trials: "list[Trial]") -> None:
    labelled = any(trial.contestant != trial.strategy for trial in trials)
    columns = ["number", "model", "dataset", "strategy", *(["contestant"] if labelled else [])]
    lengths = any(trial.length for trial in trials)
    columns += ["planner", "ranks", "seed", "repeat", *(["length"] if lengths else [])]
    rows = []
    for trial in trials:
        asked = steps.asked_resources(trial.name)
        memory, runtime = asked.memory_megabytes, asked.runtime_minutes
        rows.append(
            [
                *("" if (value := asdict(trial)[name]) is None else str(value) for name in columns),
                str(steps.settings(trial.name).threads),
                _told(memory and Quantity("MiB").spelled(memory), asked.memory_from),
                _told(runtime and Quantity("m").spelled(runtime), asked.runtime_from),
            ]
        )
    columns += ["threads", "memory of a rank", "time limit"]
    name = steps.campaign.name
    print_table(f"campaign {name}, in the order in which the trials run", columns, rows)
    played = dict.fromkeys(trial.label for trial in trials if trial.played)
    if played:
        console().print(f"One process plays all ranks of {', '.join(played)}.")
    for line in [*_tuning_lines(steps, trials), *_time_lines(steps, trials)]:
        console().print(line)
    if nodes := steps.campaign.resources.nodes:
        console().print(f"The ranks of a trial are spread over nodes: {nodes}.")


def _told(value: object, source: str) -> str:
    """Return a value that the campaign sets, or where it is going to come from."""
    if value is None:
        return f"from {source}"
    return f"{value} (default)" if source == "default" else str(value)


def _times(steps: "Steps", trial: "Trial") -> list[tuple[DescribedField, Quantity, float | None]]:
    """Return the settings of a trial that are times."""
    from hpc_lpm.engine.settings import settings_fields

    found = []
    for field in settings_fields(trial.strategy):
        if quantity := quantity_of(field.info):
            value: object = steps.settings(trial.name).model_dump()
            for name in field.path:
                value = value[name] if isinstance(value, Mapping) else None
            found.append((field, quantity, value if isinstance(value, int | float) else None))
    return found


def _tuning_lines(steps: "Steps", trials: "list[Trial]") -> list[str]:
    """Say which contestants are tuned before their trials, for how long, and among how many."""
    from hpc_lpm.campaign.tuning.candidates import candidates_of

    lines = []
    for trial in trials:
        tuning = steps.tuning(trial)
        if tuning is not None:
            candidates = len(candidates_of(steps.campaign, steps.contestant(trial)))
            budget = Quantity("s").spelled(tuning.budget_seconds)
            lines.append(
                f"{trial.contestant} is tuned before its trials, {budget} on each model and data "
                f"set, among up to {candidates} candidates."
            )
    return list(dict.fromkeys(lines))


def _time_lines(steps: "Steps", trials: "list[Trial]") -> list[str]:
    """Say what the times are that trials are trained with, and of which contestants."""
    holders: dict[str, list[str]] = {}
    for trial in trials:
        for field, quantity, value in _times(steps, trial):
            if value is not None:
                said = f"{'.'.join(field.path)} is {quantity.spelled(value)}"
                holders.setdefault(said, []).append(trial.contestant)
    everyone = {trial.contestant for trial in trials}
    lines = []
    for said, who in holders.items():
        named = ", ".join(dict.fromkeys(who))
        lines.append(f"{said}{'' if set(who) == everyone else f' for {named}'}.")
    return lines
