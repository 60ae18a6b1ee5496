"""What changed from one run to another: the trials that are in both campaigns.

An interval of two runs tells if they differ by more than each fluctuates within itself. It leaves
out what differs from one start to the next, such as where memory lies or what else the machine
does. Whether a change of the code made the difference is for the contestants' changes to tell.
"""

import math
from dataclasses import dataclass

from hpc_lpm.campaign.comparison.change import Change, change_of
from hpc_lpm.campaign.comparison.intervals import (
    difference_of_proportions,
    mean_error,
    ratio_factor,
)
from hpc_lpm.campaign.metrics import ACCURACY, MEMORY, THROUGHPUT
from hpc_lpm.campaign.quality import quality_of
from hpc_lpm.campaign.runs import Run
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.engine.result import RunResult

_OF_DEVICES = {metric.name for metric in (THROUGHPUT, MEMORY)}


@dataclass(frozen=True)
class TrialChange:
    """A trial in A and in B: changes of its metrics, and whether it reproduced its weights.

    `same_cuts` tells if its stages held the same layers, `same_environment` if its ranks found the
    same processor, packages and kernel.
    """

    trial: Trial
    changes: list[Change]
    weights_sha256_a: str
    weights_sha256_b: str
    same_cuts: bool
    same_environment: bool

    @property
    def same_weights(self) -> bool:
        """Whether every bit of parameters and buffers is the same."""
        return self.weights_sha256_a == self.weights_sha256_b

    def document(self) -> dict[str, object]:
        """Return the comparison as JSON; docs/reference/files.md describes the keys."""
        return {
            "trial": self.trial.name,
            "changes": [change.document() for change in self.changes],
            "same_weights": self.same_weights,
            "weights_sha256_a": self.weights_sha256_a,
            "weights_sha256_b": self.weights_sha256_b,
            "same_cuts": self.same_cuts,
            "same_environment": self.same_environment,
        }

    def change(self, metric: str) -> Change | None:
        """Return the change of one metric, None if a run does not have it."""
        return next((change for change in self.changes if change.metric == metric), None)


def trial_changes(first: list[Run], second: list[Run]) -> list[TrialChange]:
    """Compare the trials of the same name, in the order of B."""
    by_name = {run.trial.name: run.result for run in first}
    return [
        _compare(run.trial, by_name[run.trial.name], run.result)
        for run in second
        if run.trial.name in by_name
    ]


def _compare(trial: Trial, a: RunResult, b: RunResult) -> TrialChange:
    changes = [_throughput(a, b), *_quality(a, b), _memory(a, b)]
    return TrialChange(
        trial=trial,
        changes=[each for each in changes if not trial.played or each.metric not in _OF_DEVICES],
        weights_sha256_a=a.weights_sha256,
        weights_sha256_b=b.weights_sha256,
        same_cuts=a.cuts == b.cuts,
        same_environment=a.environment == b.environment,
    )


def _throughput(a: RunResult, b: RunResult) -> Change:
    """Return the ratio of throughputs, with an interval from the fluctuation of the steps."""
    ratio = b.samples_per_second / a.samples_per_second
    errors = mean_error(_counted_steps(a)), mean_error(_counted_steps(b))
    interval = None
    if errors[0] and errors[1]:
        factor = ratio_factor(errors[0], errors[1])
        interval = ratio / factor, ratio * factor
    return change_of(THROUGHPUT, ratio, interval, "too few steps")


def _quality(a: RunResult, b: RunResult) -> list[Change]:
    """Return the difference of the last accuracies, or of what stands for them, if both have one.

    The interval of an accuracy treats all predictions as independent. Since both runs predict the
    same samples, and mostly alike, it is wider than need be. Other qualities have none.
    """
    quality = quality_of([b])
    first, second = quality.of_run(a), quality.of_run(b)
    if math.isnan(first) or math.isnan(second):
        return []
    interval, note = None, "one value a run"
    if quality == ACCURACY:
        note = "test samples unknown"
        if a.test_predictions and b.test_predictions:
            counts = a.test_predictions, b.test_predictions
            interval = difference_of_proportions(first, counts[0], second, counts[1])
    return [change_of(quality, second - first, interval, note)]


def _memory(a: RunResult, b: RunResult) -> Change:
    """Return the ratio of the fullest ranks' peaks; a run has one, so there is no interval."""
    first, second = max(a.peak_memory_bytes), max(b.peak_memory_bytes)
    ratio = second / first if first else None
    return change_of(MEMORY, ratio, None, "one value a run")


def _counted_steps(result: RunResult) -> list[float]:
    """Return the times of the steps from which `samples_per_second` is computed."""
    return result.step_seconds[result.discarded_steps :]
