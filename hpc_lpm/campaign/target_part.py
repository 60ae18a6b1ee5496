"""What a report says of the target in one race: speed x worth of a step = time to the target."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from hpc_lpm.campaign.entrants import Entrant, baseline_of, is_proposed, rival_of
from hpc_lpm.campaign.figures.style import TIMES, DrawnFigure
from hpc_lpm.campaign.figures.target import draw_target
from hpc_lpm.campaign.metrics import SECONDS_TO_TARGET, STEPS_TO_TARGET, THROUGHPUT, Metric
from hpc_lpm.campaign.reaching import RaceTarget, Reached
from hpc_lpm.campaign.runs import Run, entrants_of
from hpc_lpm.campaign.statistics import Estimate, estimate, number, paired_ratio, runs_of
from hpc_lpm.campaign.wording import listed

NO_TARGET = (
    "This campaign has no target, so that it shows speed alone, and not what a step of each "
    "contestant is worth: `target: {metric: train_loss, value: baseline}` in its file adds the "
    "time to a target"
)
"""What a report says of a campaign without a target."""


@dataclass(frozen=True)
class TargetPart:
    """What the report shows of a race's target; `notes` are sentences on how it was found.

    `value` of `metric` is to be reached, None if the baseline gives no value.
    `baseline` is the label of the contestant that ratios are taken over, None if it did not run;
    `colours` has one entry per row.
    """

    metric: str
    value: float | None
    sentence: str
    notes: list[str]
    baseline: str | None
    columns: list[str]
    rows: list[list[str]]
    colours: list[str]
    figure: DrawnFigure | None


@dataclass(frozen=True)
class _Race:
    """One race as its target sees it."""

    summary: pd.DataFrame
    target: RaceTarget
    entrants: list[Entrant]
    reached: Mapping[Entrant, list[Reached]]
    played: frozenset[Entrant]
    discarded: int

    @property
    def baseline(self) -> Entrant | None:
        return baseline_of(self.entrants, self.entrants[0])

    def values(self, who: Entrant, metric: Metric) -> list[float]:
        """Return the steps or seconds of every run that has them, infinite where it failed."""
        column = runs_of(self.summary, who)[metric.name]
        return [float(value) for value in column.dropna()]

    def median(self, who: Entrant, metric: Metric) -> float:
        """Return the median of these, NaN if there are none."""
        values = self.values(who, metric)
        return estimate(values).median if values else math.nan

    def ratio(self, first: Entrant, second: Entrant | None, metric: Metric) -> Estimate | None:
        """Return the paired ratio, None if there is none or a median run never got there."""
        if second is None or first == second:
            return None
        found = paired_ratio(self.summary, first, second, metric.name, any_call=metric.of_seed)
        return found if found and 0 < found.median < math.inf else None


def target_part(
    summary: pd.DataFrame, runs: list[Run], colours: Mapping[str, str], target: RaceTarget
) -> TargetPart:
    """Return what the report shows of the target in one race.

    Args:
        summary: one row per run.
        runs: all of the race, those of other lengths too.
        colours: the colour of each contestant by its label.
        target: what they are to reach.
    """
    reached: dict[Entrant, list[Reached]] = {}
    for run in runs:
        if run.trial.name in target.reached:
            reached.setdefault(run.entrant, []).append(target.reached[run.trial.name])
    race = _Race(
        summary=summary,
        target=target,
        entrants=entrants_of(runs),
        reached=reached,
        played=frozenset(run.entrant for run in runs if run.trial.played),
        discarded=max((run.result.discarded_steps for run in runs), default=0),
    )
    order = sorted(reached, key=lambda who: _place(race, who))
    columns = _columns(race)
    medians = {
        who: (race.median(who, STEPS_TO_TARGET), race.median(who, SECONDS_TO_TARGET))
        for who in reached
    }
    return TargetPart(
        metric=target.metric,
        value=target.value,
        sentence=_sentence(race),
        notes=_notes(race),
        baseline=race.baseline.label if race.baseline else None,
        columns=[heading for heading, _ in columns],
        rows=[[cell(who) for _, cell in columns] for who in order],
        colours=[colours[who.label] for who in order],
        figure=draw_target(runs, colours, target, medians),
    )


def _place(race: _Race, who: Entrant) -> tuple[float, float]:
    """Return what sorts by seconds, then, of those without seconds, by steps."""
    seconds, steps = race.median(who, SECONDS_TO_TARGET), race.median(who, STEPS_TO_TARGET)
    return (math.inf if math.isnan(seconds) else seconds, steps)


def _columns(race: _Race) -> list[tuple[str, Callable[[Entrant], str]]]:
    base = race.baseline

    def over(who: Entrant, metric: Metric, *, inverse: bool) -> str:
        if base is None or who == base:
            there = metric == THROUGHPUT or math.isfinite(race.median(who, metric))
            return "1" if base is not None and there else ""
        found = race.ratio(base, who, metric) if inverse else race.ratio(who, base, metric)
        return found.text(2, 1, TIMES) if found else ""

    def value(who: Entrant, metric: Metric) -> str:
        values = race.values(who, metric)
        found = estimate(values) if values else None
        if found is None or math.isinf(found.median):
            return ""
        return found.text(metric.decimals(found.median))

    columns: list[tuple[str, Callable[[Entrant], str]]] = [("contestant", lambda who: who.label)]
    if base is not None:
        columns += [
            (f"speed over {base.label}", lambda who: over(who, THROUGHPUT, inverse=False)),
            (f"{TIMES} worth of a step", lambda who: over(who, STEPS_TO_TARGET, inverse=True)),
            ("= as fast to the target", lambda who: over(who, SECONDS_TO_TARGET, inverse=True)),
        ]
    return [
        *columns,
        (STEPS_TO_TARGET.heading, lambda who: value(who, STEPS_TO_TARGET)),
        (SECONDS_TO_TARGET.heading, lambda who: value(who, SECONDS_TO_TARGET)),
        ("reached", lambda who: reached_text(race.reached[who])),
    ]


def reached_text(runs: Sequence[Reached]) -> str:
    """Return how many runs reached the target, such as `3 of 5 reached it`."""
    there = sum(math.isfinite(run.steps_to_target) for run in runs)
    if not there:
        return f"not reached in {max(run.steps for run in runs)} steps"
    return f"{there} of {len(runs)} reached it"


def _what(target: RaceTarget) -> str:
    assert target.value is not None
    article = "an" if target.title[:1] in "aeiou" else "a"
    return f"{article} {target.title} of {target.value_text(target.value)}"


def _sentence(race: _Race) -> str:
    """State how soon the proposed method, or else the first to arrive, is at the target."""
    target, base = race.target, race.baseline
    rivals = [who for who in race.reached if who != base]
    if target.value is None or not rivals:
        return ""
    ours = [who for who in rivals if is_proposed(who)]
    hero = min(ours or rivals, key=lambda who: (who in race.played, _place(race, who)))
    where = " on ".join(hero.race)
    if math.isinf(race.median(hero, STEPS_TO_TARGET)):
        longest = max(run.steps for run in race.reached[hero])
        said = (
            f"Most runs of {hero.label} did not reach {_what(target)} with {where} in {longest} "
            "steps"
        )
        there = race.median(base, STEPS_TO_TARGET) if base in race.reached and base else math.inf
        if base and math.isfinite(there):
            said += f", where {base.label} is after {there:.0f}"
        return f"{said}."
    worth = race.ratio(base, hero, STEPS_TO_TARGET) if base else None
    faster = []
    for other in dict.fromkeys((base, rival_of(race.entrants, hero))):
        found = race.ratio(other, hero, SECONDS_TO_TARGET) if other and other != hero else None
        if found and other:
            faster.append(f"{found.median:.2f} times as fast as {other.label}{_interval(found)}")
    if faster:
        said = f"{hero.label} reaches {_what(target)} with {where} {' and '.join(faster)}"
    else:
        steps = f"{race.median(hero, STEPS_TO_TARGET):.0f}"
        said = f"{hero.label} reaches {_what(target)} with {where} after {steps} steps"
    if base and worth:
        said += f"; one step of it is worth {worth.median:.2f} of one of {base.label}"
    return f"{said}."


def _interval(ratio: Estimate) -> str:
    """Return the interval of a ratio in brackets, nothing where there are too few runs for one."""
    if ratio.low is None:
        return ""
    low, high = (number(bound, 2) for bound in ratio.bounds())
    return f" (95 % interval {low} to {high})"


def _notes(race: _Race) -> list[str]:
    """Say what the target is, how it is found, and what is to be known of the figures."""
    target = race.target
    if target.value is None:
        return [
            f"The target, 95 % of what the baseline gains in {target.title}, is unknown: "
            f"{target.why_unknown}"
        ]
    share = ", 95 % of the median gain of the baseline" if target.of_baseline else ""
    how = (
        f"The loss of each step is averaged over the last {target.window} steps"
        if target.window is not None
        else "Evaluations are joined by straight lines"
    )
    notes = [f"The target is {_what(target)}{share}. {how}"]
    if target.within_one_run:
        who = listed(list(target.within_one_run))
        notes.append(
            f"The learning rate of {who} changes along the run and one length alone was run, so "
            "that these steps are from within one run's schedule: set `lengths` for those of runs "
            "that end at the target"
        )
    if target.of_lengths:
        notes.append(
            f"The learning rate of {listed(list(target.of_lengths))} changes along the run: their "
            "steps follow from the ends of runs of several lengths, the dots of the figure"
        )
    early = [who.label for who, runs in race.reached.items() if any(run.at_first for run in runs)]
    if early:
        notes.append(
            f"Runs of {listed(early)} were beyond the target at their first value, so that their "
            "steps are an upper bound"
        )
    if race.played:
        names = [who.label for who in race.entrants if who in race.played]
        notes.append(
            f"One process played all stages of {listed(names)}: its speed and seconds are not "
            "those of devices and are left out"
        )
    if race.baseline is not None:
        notes += _product_notes(race.baseline, race.discarded)
    return notes


def _product_notes(baseline: Entrant, discarded: int) -> list[str]:
    """Say what the ratios are, and how far speed times worth is the ratio of seconds.

    Args:
        baseline: the contestant that they are taken over.
        discarded: the first steps of runs, which their speed leaves out.
    """
    worth = f"A step's worth is the steps of {baseline.label} to the target over the contestant's"
    if not discarded:
        return [
            worth,
            "Each ratio is the median over pairs of runs, so that the product holds but for what "
            "medians round",
        ]
    first = "first step" if discarded == 1 else f"first {discarded} steps"
    return [
        worth,
        f"Each ratio is the median over pairs of runs. Speed leaves out the {first} of a run "
        "(`discard_steps`), in which programs warm up, while the seconds to the target count all "
        "steps before it: the sooner the target is reached, the more these ratios differ from the "
        "product",
    ]
