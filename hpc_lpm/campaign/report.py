"""`report.html`: one page that opens from disk and needs nothing else."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hpc_lpm.campaign.crate.write import write_crate
from hpc_lpm.campaign.described_settings import describe_updates
from hpc_lpm.campaign.expectations import judge
from hpc_lpm.campaign.figures.accuracy import draw_accuracy
from hpc_lpm.campaign.figures.memory import draw_memory
from hpc_lpm.campaign.figures.plan import draw_plan
from hpc_lpm.campaign.figures.stage_activity import draw_stage_activity
from hpc_lpm.campaign.figures.style import TIMES, DrawnFigure, figure_style, strategy_colour
from hpc_lpm.campaign.figures.throughput import BASELINE, draw_throughput
from hpc_lpm.campaign.headline import (
    OURS,
    accuracy_sentence,
    as_identity,
    baseline_of,
    ratio,
    speed_sentence,
)
from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.campaign.pages import render_page
from hpc_lpm.campaign.provenance import CampaignProvenance, write_provenance
from hpc_lpm.campaign.results import CampaignResults, load_results, write_tables
from hpc_lpm.campaign.runs import Contestant, MissingTrial, Run, contestants_of
from hpc_lpm.campaign.statistics import estimate, paired_difference
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.summary import write_table
from hpc_lpm.campaign.trials import file_name
from hpc_lpm.cluster.launchers import launcher_options
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profile import Profile

MIB = 2**20


@dataclass(frozen=True)
class ReportOutcome:
    """What was written and found."""

    path: Path
    headline: str
    statistics: pd.DataFrame
    missing: list[MissingTrial]
    speedup_columns: list[str]
    speedup_rows: list[list[str]]


@dataclass(frozen=True)
class Race:
    """What the report shows of one model on one data set."""

    title: str
    sentence: str
    accuracy_sentence: str | None
    columns: list[str]
    rows: list[list[str]]
    colours: list[str]
    throughput: DrawnFigure
    accuracy: DrawnFigure | None
    memory: DrawnFigure
    plans: list[DrawnFigure]
    timeline: DrawnFigure | None

    def figures(self) -> list[DrawnFigure]:
        """Return every figure that there is."""
        drawn = [self.throughput, self.accuracy, self.memory, *self.plans, self.timeline]
        return [figure for figure in drawn if figure is not None]


def write_report(root: Path) -> ReportOutcome:
    """Write the tables, the figures with their CSV, report.html and the folder's RO-Crate metadata.

    Trials that are missing are named in the report and left out of everything else.

    Raises:
        InputError: if `root` is not the folder of a campaign.
    """
    results = load_results(root)
    write_tables(results)
    provenance = write_provenance(results)
    races = _races(results)
    for race in races:
        for figure in race.figures():
            write_text_atomically(results.folder.figures / f"{figure.name}.svg", figure.svg)
            write_table(figure.data, results.folder.figures / f"{figure.name}.csv")
    headline = races[0].sentence if races else "No trial of this campaign has finished yet."
    write_text_atomically(results.folder.report, _render(results, provenance, races, headline))
    write_crate(results, provenance)
    return ReportOutcome(
        path=results.folder.report,
        headline=headline,
        statistics=results.statistics,
        missing=results.missing,
        speedup_columns=races[0].columns if races else [],
        speedup_rows=[row for race in races for row in race.rows],
    )


def _render(
    results: CampaignResults, provenance: CampaignProvenance, races: list[Race], headline: str
) -> str:
    launches = results.launches()
    context: dict[str, Any] = {
        "campaign": results.campaign,
        "headline": headline,
        "races": races,
        "missing": results.missing,
        "verdicts": judge(results.campaign, results.summary) if results.campaign.expect else [],
        "trial_count": len(results.trials),
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
        "ended": provenance.ended,
    }
    return render_page("report.html.j2", context)


def _races(results: CampaignResults) -> list[Race]:
    by_race: dict[tuple[str, str], list[Run]] = {}
    for run in results.runs:
        by_race.setdefault(run.contestant.race, []).append(run)
    with figure_style():
        return [_race(results, runs) for runs in by_race.values()]


def _race(results: CampaignResults, runs: list[Run]) -> Race:
    contestants = contestants_of(runs)
    medians = {
        who: estimate(
            [run.result.samples_per_second for run in runs if run.contestant == who]
        ).median
        for who in contestants
    }
    order = sorted(contestants, key=lambda who: -medians[who])
    speedups = {
        who: found.median
        for who in contestants
        if (baseline := baseline_of(contestants, who))
        and (found := ratio(results.summary, who, baseline))
    }
    ours = [who for who in order if who.strategy == OURS]
    model, dataset = contestants[0].race
    return Race(
        title=f"{model} on {dataset}",
        sentence=speed_sentence(results.summary, contestants, medians),
        accuracy_sentence=accuracy_sentence(results.summary, contestants, (ours or order)[0]),
        columns=[
            "contestant",
            "ranks",
            "samples/s",
            f"over {BASELINE}",
            "over deepspeed-1f1b",
            "test accuracy",
            f"against {BASELINE}, points",
            "peak memory, MiB",
            "idle",
        ],
        rows=[_row(results.summary, runs, contestants, who) for who in order],
        colours=[strategy_colour(who.strategy) for who in order],
        throughput=draw_throughput(runs, speedups),
        accuracy=draw_accuracy(runs),
        memory=draw_memory(runs),
        plans=_plans(results, runs),
        timeline=draw_stage_activity(runs),
    )


def _row(
    summary: pd.DataFrame, runs: list[Run], contestants: list[Contestant], who: Contestant
) -> list[str]:
    own = [run for run in runs if run.contestant == who]
    accuracies = [run.result.test_accuracy[-1] for run in own if run.result.test_accuracy]
    speed = estimate([run.result.samples_per_second for run in own])
    memory = estimate([max(run.result.peak_memory_bytes) / MIB for run in own])
    idle = estimate([sum(run.result.idle_share) / len(run.result.idle_share) for run in own])
    baseline = baseline_of(contestants, who)
    difference = None
    if baseline and baseline != who:
        difference = paired_difference(
            summary, as_identity(who), as_identity(baseline), "test_accuracy"
        )
    return [
        who.label,
        str(own[0].result.ranks),
        speed.text(0 if speed.median >= 1000 else 1),
        _speedup(summary, who, baseline),
        _speedup(summary, who, _rival(contestants, who, "deepspeed-1f1b")),
        estimate(accuracies).text(2, 100, " %") if accuracies else "",
        difference.text(2, 100) if difference else "",
        f"{memory.median:.0f}",
        f"{100 * idle.median:.0f} %",
    ]


def _rival(contestants: list[Contestant], who: Contestant, strategy: str) -> Contestant | None:
    same = [c for c in contestants if c.race == who.race and c.strategy == strategy]
    matching = [c for c in same if c.planner == who.planner] or same
    return matching[0] if matching else None


def _speedup(summary: pd.DataFrame, who: Contestant, rival: Contestant | None) -> str:
    if rival is None or rival == who:
        return ""
    found = ratio(summary, who, rival)
    return found.text(2, 1, TIMES) if found else ""


def _plans(results: CampaignResults, runs: list[Run]) -> list[DrawnFigure]:
    """Draw every plan of a race; contestants with the same cuts share one figure."""
    folder, steps = results.folder, Steps(results.campaign, results.folder)
    users: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    drawn: dict[tuple[str, tuple[int, ...]], tuple[Profile, Plan, str]] = {}
    for who in contestants_of(runs):
        trial = next(run.trial for run in runs if run.contestant == who)
        if trial.planner is None:
            continue
        try:
            plan = Plan.read(folder.plan(trial))
            profile = Profile.read(steps.profile_path(trial))
        except InputError:  # trained with a plan from elsewhere
            continue
        key = (trial.planner, plan.cuts)
        users.setdefault(key, []).append(trial.contestant)
        name = file_name("plan", trial.model, trial.dataset, trial.planner, trial.contestant)
        drawn.setdefault(key, (profile, plan, name))
    return [
        draw_plan(name, profile, plan, " and ".join(users[key]))
        for key, (profile, plan, name) in drawn.items()
    ]


def _settings(results: CampaignResults) -> dict[str, str]:
    campaign = results.campaign
    launcher = campaign.launcher
    options = launcher_options(launcher.mpi, launcher.options)
    length = f"{campaign.epochs} epochs" if campaign.epochs else f"{campaign.steps} steps"
    return {
        "models": ", ".join(campaign.models),
        "data sets": ", ".join(campaign.datasets),
        "contestants": ", ".join(contestant.label for contestant in campaign.contestants),
        "planners": ", ".join(campaign.planners),
        "stages": str(campaign.stages),
        "batch": f"{campaign.batch_size} samples as {campaign.micro_batches} micro-batches of "
        f"{campaign.micro_batch}",
        "length": length,
        **describe_updates(campaign),
        "precision": f"{campaign.precision}, {campaign.memory_format}",
        "launcher": " ".join([launcher.mpi, *options]),
        "threads": "1 a rank",
        "seeds": ", ".join(str(seed) for seed in campaign.seeds),
        "repeats": f"{campaign.repeats}, contestants interleaved (A B C, A B C)",
    }


def commands_of(results: CampaignResults, launches: dict[str, Launch]) -> list[tuple[str, str]]:
    """Return (what, command) of the whole campaign, then of profiles, plans and a run of each kind.

    A run that was launched shows the command that it was launched with, shortened to the names of
    programs where they lie in the environment that this report was made in.
    """
    folder = results.folder
    steps = Steps(results.campaign, folder)
    listed = [
        (
            "the whole campaign, beside the results that are there",
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
    shown: set[object] = set()
    for trial in results.trials:
        who = (trial.model, trial.dataset, trial.strategy, trial.planner)
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
