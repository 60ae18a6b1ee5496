"""Writes `report.html`, a page that opens from disk and needs nothing else, and all it links to."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hpc_lpm.campaign.absent import AbsentContestant
from hpc_lpm.campaign.crate.write import write_crate
from hpc_lpm.campaign.described_settings import describe_updates
from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.expectations import judge
from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.campaign.notes import notes_on
from hpc_lpm.campaign.pages import render_page
from hpc_lpm.campaign.provenance import CampaignProvenance, write_provenance
from hpc_lpm.campaign.races import Race, races_of
from hpc_lpm.campaign.results import CampaignResults, load_results, write_tables
from hpc_lpm.campaign.runs import MissingTrial
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.summary import write_table
from hpc_lpm.campaign.target_part import NO_TARGET
from hpc_lpm.campaign.tuning.table import COLUMNS, tuning_rows
from hpc_lpm.cluster.launchers import launcher_options
from hpc_lpm.files import write_text_atomically


@dataclass(frozen=True)
class ReportOutcome:
    """What a report says, in short, and where it is; `headline` is that of the first race.

    `notes` are sentences without full stops on what is to be known of the numbers.
    """

    path: Path
    headline: str
    statistics: pd.DataFrame
    missing: list[MissingTrial]
    absent: list[AbsentContestant]
    notes: list[str]
    races: list[Race]


def write_report(root: Path) -> ReportOutcome:
    """Write the tables, the figures with their CSV, report.html and the folder's RO-Crate metadata.

    Trials that are missing and contestants that are not installed are named in the report and left
    out of everything else.

    Raises:
        InputError: if `root` is not the folder of a campaign.
    """
    results = load_results(root)
    write_tables(results)
    provenance = write_provenance(results)
    races = races_of(results)
    for race in races:
        for figure in race.figures():
            write_text_atomically(results.folder.figures / f"{figure.name}.svg", figure.svg)
            write_table(figure.data, results.folder.figures / f"{figure.name}.csv")
    headline = races[0].headline if races else "No trial of this campaign has finished yet."
    notes = notes_on(results)
    page = _render(results, provenance, races, headline, notes)
    write_text_atomically(results.folder.report, page)
    write_crate(results, provenance)
    return ReportOutcome(
        path=results.folder.report,
        headline=headline,
        statistics=results.statistics,
        missing=results.missing,
        absent=results.absent,
        notes=notes,
        races=races,
    )


def _render(
    results: CampaignResults,
    provenance: CampaignProvenance,
    races: list[Race],
    headline: str,
    notes: list[str],
) -> str:
    launches = results.launches()
    context: dict[str, Any] = {
        "campaign": results.campaign,
        "headline": headline,
        "races": races,
        "missing": results.missing,
        "absent": results.absent,
        "notes": notes,
        "verdicts": judge(results.campaign, results.summary) if results.campaign.expect else [],
        "no_target": NO_TARGET if results.campaign.target is None else "",
        "trial_count": len(results.runs) + len(results.missing),
        "run_count": len(results.runs),
        "settings": _settings(results),
        "environment": provenance.environment,
        "provenance": provenance,
        "continued": {
            name: len(trial.attempts)
            for name, trial in provenance.trials.items()
            if len(trial.attempts) > 1
        },
        "commands": commands_of(results, launches),
        "tuning_columns": COLUMNS,
        "tunings": tuning_rows(provenance.tunings),
        "ended": provenance.ended,
    }
    return render_page("report.html.j2", context)


def _settings(results: CampaignResults) -> dict[str, str]:
    campaign = results.campaign
    launcher = campaign.launcher
    options = launcher_options(launcher.mpi, launcher.options)
    length = f"{campaign.epochs} epochs" if campaign.epochs else f"{campaign.steps} steps"
    if campaign.lengths:
        length += f", for the target {', '.join(map(str, campaign.lengths))} too"
    target = campaign.target
    return {
        "models": ", ".join(campaign.models),
        "data sets": ", ".join(campaign.datasets),
        "contestants": ", ".join(contestant.label for contestant in campaign.contestants),
        "planners": ", ".join(campaign.planners) if not campaign.cuts else "none, cuts are given",
        "stages": str(campaign.stages),
        "batch": f"{campaign.batch_size} samples as {campaign.micro_batches} micro-batches of "
        f"{campaign.micro_batch_size}",
        "length": length,
        **({"target": f"{target.metric} {target.value}"} if target else {}),
        **describe_updates(campaign),
        "precision": f"{campaign.precision}, {campaign.memory_format}",
        "launcher": " ".join([launcher.mpi, *options]),
        "threads": f"{campaign.threads} per rank",
        "seeds": ", ".join(str(seed) for seed in campaign.seeds),
        "repeats": f"{campaign.repeats}, contestants interleaved (A B C, A B C)",
    }


def commands_of(results: CampaignResults, launches: dict[str, Launch]) -> list[tuple[str, str]]:
    """Return (what, command) for the campaign, its profiles, plans, tunings and each entrant's run.

    The command of a run is the one that it was launched with. Programs of the environment in which
    the report is made are shortened to their names.
    """
    folder = results.folder
    steps = Steps(results.campaign, folder)
    listed = [
        (
            "the whole campaign again, beside the present results",
            f"cp {shlex.quote(str(folder.campaign))} again.json && snakemake --cores "
            f"{results.campaign.stages} --configfile again.json --config name="
            f"{results.campaign.name}-again",
        )
    ]
    for kind, group in (("profile", steps.profiles), ("plan", steps.plans)):
        for name, step in group.items():
            program = "python -m mpi4py -m hpc_lpm" if step.ranks > 1 else "hpc-lpm"
            launcher = f"mpirun -n {step.ranks} " if step.ranks > 1 else ""
            command = f"{launcher}{program} {shlex.join(step.arguments)}"
            listed.append((f"{kind} {name}", command))
    for name, step in steps.tunings.items():
        listed.append((f"tuning {name}", f"hpc-lpm {shlex.join(step.arguments)} --log tuning.log"))
    shown: set[Entrant] = set()
    for trial in results.trials:
        who = Entrant.of(trial)
        if trial.name in launches and who not in shown:
            shown.add(who)
            listed.append((trial.name, _shorten(launches[trial.name].command)))
    return listed


def _shorten(command: list[str]) -> str:
    programs = Path(sys.executable).parent
    short = [
        Path(word).name if Path(word).is_absolute() and Path(word).parent == programs else word
        for word in command
    ]
    return shlex.join(short)
