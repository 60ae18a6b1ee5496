"""What a report shows of each race: the contestants of one model on one data set, side by side."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from hpc_lpm.campaign.entrants import Entrant, baseline_of, is_proposed, rival_of
from hpc_lpm.campaign.figures.memory import draw_memory
from hpc_lpm.campaign.figures.plan import draw_plan
from hpc_lpm.campaign.figures.quality import draw_quality
from hpc_lpm.campaign.figures.stage_activity import draw_stage_activity
from hpc_lpm.campaign.figures.style import TIMES, DrawnFigure, figure_style
from hpc_lpm.campaign.figures.throughput import draw_throughput
from hpc_lpm.campaign.headline import quality_sentence, speed_sentence
from hpc_lpm.campaign.metrics import THROUGHPUT, Metric
from hpc_lpm.campaign.quality import quality_of
from hpc_lpm.campaign.results import CampaignResults
from hpc_lpm.campaign.runs import Run, entrants_of
from hpc_lpm.campaign.statistics import estimate, paired_difference, paired_ratio, runs_of
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.target_part import TargetPart, target_part
from hpc_lpm.campaign.trials import file_name
from hpc_lpm.errors import InputError
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profile_file import Profile


@dataclass(frozen=True)
class Column:
    """A column of the report's table: its heading, and what it says of a contestant."""

    heading: str
    cell: Callable[[Entrant], str]


@dataclass(frozen=True)
class Race:
    """What the report shows of one model on one data set.

    `baseline` is the label of the contestant that speedups are taken over, None if it did not run;
    `colours` has one entry per row.
    """

    title: str
    target: TargetPart | None
    sentence: str
    quality_title: str
    quality_sentence: str | None
    baseline: str | None
    columns: list[str]
    rows: list[list[str]]
    colours: list[str]
    throughput: DrawnFigure | None
    quality: DrawnFigure | None
    memory: DrawnFigure | None
    plans: list[DrawnFigure]
    stage_activity: DrawnFigure | None

    @property
    def headline(self) -> str:
        """The sentence on the target, or on speed where there is none."""
        return (self.target.sentence if self.target else "") or self.sentence

    def figures(self) -> list[DrawnFigure]:
        """Return every figure that there is."""
        target = self.target.figure if self.target else None
        drawn = [
            target,
            self.throughput,
            self.quality,
            self.memory,
            *self.plans,
            self.stage_activity,
        ]
        return [figure for figure in drawn if figure is not None]


def races_of(results: CampaignResults) -> list[Race]:
    """Return every race of which a trial has finished, with its figures drawn."""
    by_race: dict[tuple[str, str], list[Run]] = {}
    for run in results.runs:
        by_race.setdefault(run.entrant.race, []).append(run)
    with figure_style():
        return [_race(results, runs) for runs in by_race.values()]


def _race(results: CampaignResults, every_run: list[Run]) -> Race:
    runs = [run for run in every_run if run.trial.length is None] or every_run
    # One process that plays several devices says nothing of their speed and memory.
    devices = [run for run in runs if not run.trial.played]
    summary, entrants = results.summary, entrants_of(runs)
    medians = {who: float(runs_of(summary, who)[THROUGHPUT.name].median()) for who in entrants}
    medians = {who: median for who, median in medians.items() if not math.isnan(median)}
    order = sorted(entrants, key=lambda who: -medians.get(who, 0.0))
    proposed = [who for who in order if is_proposed(who)]
    quality = quality_of([run.result for run in runs])
    columns = _columns(results.metrics, quality, summary, entrants)
    colours = results.colours()
    model, dataset = entrants[0].race
    baseline = baseline_of(entrants, entrants[0])
    return Race(
        title=f"{model} on {dataset}",
        target=target_part(summary, every_run, colours, results.targets[model, dataset])
        if results.targets
        else None,
        sentence=speed_sentence(summary, entrants, medians),
        quality_title=quality.title.capitalize(),
        quality_sentence=quality_sentence(summary, entrants, (proposed or order)[0], quality),
        baseline=baseline.label if baseline else None,
        columns=[column.heading for column in columns],
        rows=[[column.cell(who) for column in columns] for who in order],
        colours=[colours[who.label] for who in order],
        throughput=draw_throughput(devices, colours, _speedups(summary, entrants))
        if devices
        else None,
        quality=draw_quality(runs, colours, quality),
        memory=draw_memory(devices, colours) if devices else None,
        plans=_plans(results, runs),
        stage_activity=draw_stage_activity(devices),
    )


def _columns(
    metrics: Sequence[Metric],
    quality: Metric,
    summary: pd.DataFrame,
    entrants: Sequence[Entrant],
) -> list[Column]:
    """Return the columns of the table: what each contestant is, then metric by metric.

    Throughput is followed by the ratios over the baseline and the established rival, the
    quality of the model by the difference from the baseline, as far as these ran. A metric that no
    contestant has is left out.
    """
    baseline = baseline_of(entrants, entrants[0])
    rival = rival_of(entrants, entrants[0])
    columns = [
        Column("contestant", lambda who: who.label),
        Column("ranks", lambda who: str(runs_of(summary, who)["ranks"].iloc[0])),
    ]
    for metric in metrics:
        values = (runs_of(summary, who)[metric.name] for who in entrants)
        if metric.in_report == "no" or all(each.isna().all() for each in values):
            continue
        columns.append(_metric_column(metric, summary))
        if metric == THROUGHPUT:
            if baseline:
                columns.append(_speedup_column(summary, entrants, baseline, baseline_of))
            if rival:
                columns.append(_speedup_column(summary, entrants, rival, rival_of))
        elif metric == quality and baseline:
            columns.append(_quality_column(summary, baseline, quality))
    return columns


def _metric_column(metric: Metric, summary: pd.DataFrame) -> Column:
    def cell(who: Entrant) -> str:
        values = [float(value) for value in runs_of(summary, who)[metric.name].dropna()]
        if not values:
            return ""
        found = estimate(values)
        digits = metric.decimals(found.median)
        if metric.in_report == "median":
            return f"{metric.scale * found.median:.{digits}f}{metric.suffix}"
        return found.text(digits, metric.scale, metric.suffix)

    return Column(metric.heading, cell)


def _speedup_column(
    summary: pd.DataFrame,
    entrants: Sequence[Entrant],
    named: Entrant,
    partner_of: Callable[[Sequence[Entrant], Entrant], Entrant | None],
) -> Column:
    def cell(who: Entrant) -> str:
        partner = partner_of(entrants, who)
        if partner is None or partner == who:
            return ""
        found = paired_ratio(summary, who, partner, THROUGHPUT.name)
        return found.text(2, 1, TIMES) if found else ""

    return Column(f"over {named.name}", cell)


def _quality_column(summary: pd.DataFrame, baseline: Entrant, quality: Metric) -> Column:
    def cell(who: Entrant) -> str:
        if who == baseline:
            return ""
        found = paired_difference(summary, who, baseline, quality.name)
        return found.text(quality.digits, quality.scale) if found else ""

    unit = ", points" if quality.compared_as == "points" else ""
    return Column(f"against {baseline.name}{unit}", cell)


def _speedups(summary: pd.DataFrame, entrants: Sequence[Entrant]) -> dict[Entrant, float]:
    """Return the paired speedup over the baseline of everyone but the baseline itself."""
    speedups: dict[Entrant, float] = {}
    for who in entrants:
        baseline = baseline_of(entrants, who)
        if baseline is None or baseline == who:
            continue
        found = paired_ratio(summary, who, baseline, THROUGHPUT.name)
        if found:
            speedups[who] = found.median
    return speedups


def _plans(results: CampaignResults, runs: list[Run]) -> list[DrawnFigure]:
    """Draw every plan of a race; contestants with the same cuts share one figure."""
    folder, steps = results.folder, Steps(results.campaign, results.folder)
    users: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    drawn: dict[tuple[str, tuple[int, ...]], tuple[Profile, Plan, str]] = {}
    for who in entrants_of(runs):
        trial = next(run.trial for run in runs if run.entrant == who)
        if trial.planner is None:
            continue
        try:
            plan = Plan.read(folder.plan(trial))
            profile = Profile.read(steps.profile_path(trial))
        except InputError:  # trained with a plan from elsewhere
            continue
        key = (trial.planner, plan.cuts)
        users.setdefault(key, []).append(who.name)
        name = file_name("plan", trial.model, trial.dataset, trial.planner, who.name)
        drawn.setdefault(key, (profile, plan, name))
    return [
        draw_plan(name, profile, plan, " and ".join(users[key]))
        for key, (profile, plan, name) in drawn.items()
    ]
