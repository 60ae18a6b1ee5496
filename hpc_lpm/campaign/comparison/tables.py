"""A comparison arranged by races, for the terminal and for the page alike."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from hpc_lpm.campaign.comparison.change import Change, Outcome
from hpc_lpm.campaign.comparison.compare import Comparison
from hpc_lpm.campaign.comparison.contestants import ContestantChange, compared_quantities
from hpc_lpm.campaign.comparison.trials import TrialChange
from hpc_lpm.campaign.metrics import Quantity


@dataclass(frozen=True)
class RaceChanges:
    """What changed in the race of one model on one data set.

    `quantities` are all that campaigns are compared by, in the order of the table of metrics;
    trials are grouped by contestant.
    """

    title: str
    quantities: list[Quantity]
    contestants: list[ContestantChange]
    trials: list[TrialChange]

    def labels(self) -> list[str]:
        """Return the label of every contestant once, in order."""
        return list(dict.fromkeys(entry.who.label for entry in self.contestants))

    def trial_quantities(self) -> list[Quantity]:
        """Return the quantities that were compared trial by trial, in order."""
        changes = (change for entry in self.trials for change in entry.changes)
        return list(dict.fromkeys(change.quantity for change in changes))


def race_changes(comparison: Comparison) -> list[RaceChanges]:
    """Return the changes of every race that has contestants in both campaigns."""
    quantities = compared_quantities(comparison.b.metrics)
    return [
        RaceChanges(
            title=f"{model} on {dataset}",
            quantities=quantities,
            contestants=[e for e in comparison.contestants if e.who.race == (model, dataset)],
            trials=_grouped(
                entry
                for entry in comparison.trials
                if (entry.trial.model, entry.trial.dataset) == (model, dataset)
            ),
        )
        for model, dataset in dict.fromkeys(entry.who.race for entry in comparison.contestants)
    ]


def trial_sentences(comparison: Comparison) -> list[str]:
    """State, for each metric, how many trials changed for the better and for the worse."""
    by_quantity: dict[Quantity, list[Change]] = {}
    for entry in comparison.trials:
        for change in entry.changes:
            by_quantity.setdefault(change.quantity, []).append(change)
    return [_count_sentence(quantity.title, found) for quantity, found in by_quantity.items()]


def _count_sentence(title: str, changes: Iterable[Change]) -> str:
    """Return e.g. `throughput: 2 better, 1 worse, 3 inconclusive`."""
    counts = Counter(change.verdict for change in changes)
    return f"{title}: {', '.join(f'{counts[word]} {word}' for word in get_args(Outcome))}"


def _grouped(trials: Iterable[TrialChange]) -> list[TrialChange]:
    groups: dict[str, list[TrialChange]] = {}
    for entry in trials:
        groups.setdefault(entry.trial.label, []).append(entry)
    return [entry for group in groups.values() for entry in group]
