"""In how many steps and seconds the runs of a campaign reach its target, race by race."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.contestants import contestant_settings
from hpc_lpm.campaign.curves import Curve, baseline_target, crossing, default_window, smoothed
from hpc_lpm.campaign.entrants import baseline_of
from hpc_lpm.campaign.quality import metric_named
from hpc_lpm.campaign.runs import Run, entrants_of
from hpc_lpm.campaign.target import BASELINE, TRAIN_LOSS, Target, target_text
from hpc_lpm.engine.strategies.registry import strategy_named

CONSTANT = "constant"
"""The schedule under which a run says at every step what a shorter one would have ended with."""


@dataclass(frozen=True)
class Reached:
    """After how many steps and seconds a run is at the target; infinite if it never is.

    `steps` are those of the run, or of the longest of several lengths. `at_first` tells that the
    first value, or the shortest length, is already beyond the target: it may have been reached
    before. `seconds` is NaN where one process has played several devices.
    """

    steps_to_target: float
    seconds_to_target: float
    steps: int
    at_first: bool

    @property
    def sentence(self) -> str:
        """What is to be known of it beside its numbers, for the tables."""
        if math.isinf(self.steps_to_target):
            return f"not reached in {self.steps} steps"
        return "reached at the first value" if self.at_first else "reached"


@dataclass(frozen=True)
class RaceTarget:
    """The target in one race, and who reached it.

    Attributes:
        metric: the name of the metric.
        title: what people call it.
        percent: whether it is a share, which is shown in percent.
        lower: whether lower values are the better ones.
        value: what is to be reached, None if the baseline gives none.
        why_unknown: why the baseline gives no value, empty if it gives one.
        of_baseline: whether the value follows from the runs of the baseline.
        window: the steps over which a training loss is averaged, None for other metrics.
        of_lengths: the contestants whose figure follows from the ends of runs of several lengths.
        within_one_run: the contestants whose figure is from within one run under a rate that
            changes, as no other length of it was run.
        curves: the curve of every run that has one, by the name of its trial.
        reached: what every run of a contestant's usual length, together with its other lengths,
            has found, by the name of its trial.
    """

    metric: str
    title: str
    percent: bool
    lower: bool
    value: float | None
    why_unknown: str
    of_baseline: bool
    window: int | None
    of_lengths: tuple[str, ...]
    within_one_run: tuple[str, ...]
    curves: Mapping[str, Curve]
    reached: Mapping[str, Reached]

    def value_text(self, value: float) -> str:
        """Return a value of the metric in the unit in which it is shown."""
        return f"{100 * value:.2f} %" if self.percent else f"{value:.4g}"


def targets_of(campaign: Campaign, runs: Sequence[Run]) -> dict[tuple[str, str], RaceTarget]:
    """Return the target of every race of a campaign that has one; none without a target."""
    if campaign.target is None:
        return {}
    races: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        races.setdefault(run.entrant.race, []).append(run)
    return {race: _race_target(campaign, campaign.target, found) for race, found in races.items()}


def _race_target(campaign: Campaign, target: Target, runs: Sequence[Run]) -> RaceTarget:
    lower, percent = True, False
    if target.metric != TRAIN_LOSS:
        lower, percent = _direction(target.metric, runs)
    usual = [run for run in runs if run.trial.length is None]
    window = None
    if target.metric == TRAIN_LOSS:
        longest = max((len(run.result.step_seconds) for run in usual), default=1)
        window = target.window or default_window(longest)
    curves = {run.trial.name: curve for run in runs if (curve := _curve(run, target, window))}
    value: float | None
    why_unknown = ""
    if target.value == BASELINE:
        baseline = baseline_of(entrants_of(usual), usual[0].entrant) if usual else None
        names = [run.trial.name for run in usual if run.entrant == baseline]
        of_baseline = [curves[name] for name in names if name in curves]
        value = baseline_target(of_baseline, lower=lower)
        if value is None:
            why_unknown = _why_unknown(of_baseline, window)
    else:
        value = float(target.value)
    decaying = {
        contestant.label
        for contestant in campaign.contestants
        if contestant_settings(campaign, contestant).learning_rate.schedule != CONSTANT
    }
    reached: dict[str, Reached] = {}
    several: set[str] = set()
    for run in usual:
        others = [each for each in runs if _other_length(each, run)]
        if value is None or run.trial.name not in curves:
            continue
        if run.trial.contestant in decaying and others:
            several.add(run.trial.contestant)
            curve = _ends(curves, [*others, run])
        else:
            curve = curves[run.trial.name]
        reached[run.trial.name] = _reached(curve, value, lower=lower, played=run.trial.played)
    return RaceTarget(
        metric=target.metric,
        title=target_text(target.metric),
        percent=percent,
        lower=lower,
        value=value,
        why_unknown=why_unknown,
        of_baseline=target.value == BASELINE,
        window=window,
        of_lengths=_labels(usual, several),
        within_one_run=_labels(usual, decaying - several),
        curves=curves,
        reached=reached,
    )


def _why_unknown(curves: Sequence[Curve], window: int | None) -> str:
    """Return why the curves of the baseline give no value."""
    if not curves or any(len(curve.values) > 1 for curve in curves):
        return "no run of it has finished, or none has gained anything"
    if window is None:
        return "its runs have one evaluation each, of which no gain can be told"
    steps = max(round(curve.steps[-1]) for curve in curves)
    return (
        f"the loss is averaged over {window} steps, and runs of {steps} have one such mean, of "
        "which no gain can be told: set a smaller window, or train for longer"
    )


def _labels(runs: Iterable[Run], contestants: set[str]) -> tuple[str, ...]:
    """Return those of the contestants that have a run, in their order."""
    labels = dict.fromkeys(run.trial.contestant for run in runs)
    return tuple(label for label in labels if label in contestants)


def _direction(name: str, runs: Sequence[Run]) -> tuple[bool, bool]:
    """Return whether lower values of a metric are better, and whether it is a share."""
    metric = metric_named(name)
    own = {each for run in runs for each in run.result.lower_is_better}
    return metric.better == "lower" or name.partition("_")[2] in own, metric.unit == "%"


def _other_length(each: Run, usual: Run) -> bool:
    a, b = each.trial, usual.trial
    return a.length is not None and (a.label, a.seed, a.repeat, a.again) == (
        b.label,
        b.seed,
        b.repeat,
        b.again,
    )


def _curve(run: Run, target: Target, window: int | None) -> Curve | None:
    """Return the curve of a run, None if it has none or its ranks train apart from each other."""
    result = run.result
    if strategy_named(run.trial.strategy).independent:
        return None
    seconds = [0.0, *accumulate(result.step_seconds)]
    points: list[tuple[int, float | None]]
    if window is not None:
        values = smoothed(result.train_loss, window)
        first = len(result.train_loss) - len(values) + 1
        points = list(enumerate(values, start=first))
    else:
        points = [
            (each.step, each.values[target.metric])
            for each in result.evaluations
            if target.metric in each.values
        ]
    if not points:
        return None
    steps, found = zip(*points, strict=True)
    return Curve(
        steps=tuple(float(step) for step in steps),
        seconds=tuple(seconds[step] for step in steps),
        values=tuple(math.nan if value is None else float(value) for value in found),
    )


def _ends(curves: Mapping[str, Curve], runs: Sequence[Run]) -> Curve:
    """Return the curve through the ends of runs of several lengths."""
    ends = sorted(curves[run.trial.name].end for run in runs if run.trial.name in curves)
    steps, seconds, values = zip(*ends, strict=True)
    return Curve(steps=steps, seconds=seconds, values=values)


def _reached(curve: Curve, value: float, *, lower: bool, played: bool) -> Reached:
    steps = crossing(curve, value, lower=lower)
    seconds = math.inf if math.isinf(steps) else curve.seconds_after(steps)
    return Reached(
        steps_to_target=steps,
        seconds_to_target=math.nan if played else seconds,
        steps=round(curve.steps[-1]),
        at_first=steps == curve.steps[0],
    )
