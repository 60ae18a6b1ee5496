"""A comparison as tables of words, a race each: the same for the terminal and the page."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from hpc_lpm.campaign.comparison.change import METRIC_TITLES, Change, Outcome
from hpc_lpm.campaign.comparison.compare import Comparison
from hpc_lpm.campaign.comparison.contestants import ContestantChange
from hpc_lpm.campaign.comparison.trials import TrialChange


@dataclass(frozen=True)
class ContestantRow:
    """A contestant by its label, and one of its changes."""

    label: str
    entry: ContestantChange


@dataclass(frozen=True)
class RaceChanges:
    """What changed of one model on one data set; trials stand together by strategy."""

    title: str
    contestants: list[ContestantRow]
    trials: list[TrialChange]

    def labels(self) -> list[str]:
        """Return every contestant once, in order."""
        return list(dict.fromkeys(row.label for row in self.contestants))

    def trial_metrics(self) -> list[str]:
        """Return every metric that some trial has a change of, in order."""
        found = {change.metric for entry in self.trials for change in entry.changes}
        return [metric for metric in METRIC_TITLES if metric in found]


def race_changes(comparison: Comparison) -> list[RaceChanges]:
    """Return the changes of every race that has contestants in both campaigns."""
    races = dict.fromkeys((entry.model, entry.dataset) for entry in comparison.contestants)
    found = []
    for model, dataset in races:
        own = [e for e in comparison.contestants if (e.model, e.dataset) == (model, dataset)]
        several = len({entry.planner for entry in own if entry.planner}) > 1
        found.append(
            RaceChanges(
                title=f"{model} on {dataset}",
                contestants=[ContestantRow(_label(entry, several), entry) for entry in own],
                trials=_grouped(
                    entry
                    for entry in comparison.trials
                    if (entry.trial.model, entry.trial.dataset) == (model, dataset)
                ),
            )
        )
    return found


def trial_sentences(comparison: Comparison) -> list[str]:
    """Return, for each metric of trials, how many of them changed for better and worse."""
    by_metric: dict[str, list[Change]] = {}
    for entry in comparison.trials:
        for change in entry.changes:
            by_metric.setdefault(change.metric, []).append(change)
    return [_count_sentence(METRIC_TITLES[key], changes) for key, changes in by_metric.items()]


def _count_sentence(title: str, changes: Iterable[Change]) -> str:
    """Return e.g. `throughput: 2 better, 1 worse, 3 inconclusive`."""
    counts = Counter(change.verdict for change in changes)
    return f"{title}: {', '.join(f'{counts[word]} {word}' for word in get_args(Outcome))}"


def _grouped(trials: Iterable[TrialChange]) -> list[TrialChange]:
    groups: dict[str, list[TrialChange]] = {}
    for entry in trials:
        groups.setdefault(entry.trial.label, []).append(entry)
    return [entry for group in groups.values() for entry in group]


def _label(entry: ContestantChange, several: bool) -> str:
    return f"{entry.strategy} ({entry.planner})" if several and entry.planner else entry.strategy
