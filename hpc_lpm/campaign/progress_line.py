"""One line that says where a trial and the whole campaign stand."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.campaign.run_log import Metrics, read_metrics
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.errors import InputError

STEPS_OF_THROUGHPUT = 10
"""The throughput shown is that of the median of this many last steps."""


class ProgressLine:
    """Progress of the trial `name` and of the campaign around it, from the files they write.

    It works from any process that sees the campaign's folder, so trials may run on other nodes.
    """

    def __init__(
        self, steps: Steps, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._steps = steps
        self._trial = steps.trials[name]
        self._clock = clock
        self._started = clock()

    def line(self) -> str:
        """Return the progress line of a running trial."""
        metrics = read_metrics(self._folder(self._trial.name) / "metrics.jsonl")
        return " | ".join([self._heading(), *self._trial_parts(metrics), self._whole(metrics)])

    def closing_line(self, exit_code: int) -> str:
        """Return the line that ends the trial."""
        metrics = read_metrics(self._folder(self._trial.name) / "metrics.jsonl")
        elapsed = f"{self._clock() - self._started:.0f} s"
        end = f"done in {elapsed}" if exit_code == 0 else f"failed after {elapsed}"
        return " | ".join([self._heading(), *self._trial_parts(metrics)[1:], end])

    def _folder(self, name: str) -> Path:
        return self._steps.folder.run(name)

    def _heading(self) -> str:
        campaign, trial = self._steps.campaign, self._trial
        words = [trial.label]
        words += [trial.model] if len(campaign.models) > 1 else []
        words += [trial.dataset] if len(campaign.datasets) > 1 else []
        position = f"[{trial.number}/{len(self._steps.trials)}]"
        return f"{position} {' '.join(words)} seed {trial.seed} repeat {trial.repeat}"

    def _trial_parts(self, metrics: Metrics) -> list[str]:
        campaign = self._steps.campaign
        done = len(metrics.step_seconds)
        if campaign.steps is not None:
            parts = [f"step {done}/{campaign.steps}" if done else "starting"]
        else:
            epoch = min(len(metrics.accuracies) + 1, campaign.epochs or 1)
            parts = [f"epoch {epoch}/{campaign.epochs}" if done else "starting"]
        recent = metrics.step_seconds[-STEPS_OF_THROUGHPUT:]
        if recent and median(recent) > 0:
            parts.append(f"{campaign.batch_size / median(recent):.1f} samples/s")
        if metrics.accuracies:
            parts.append(f"accuracy {100 * metrics.accuracies[-1][2]:.1f} %")
        return parts

    def _whole(self, metrics: Metrics) -> str:
        finished = self._finished_seconds()
        share = self._share(metrics)
        total = len(self._steps.trials)
        percent = 100 * (len(finished) + share) / total
        left = self._seconds_left(finished, share)
        ending = "" if left is None else f", about {_duration(left)} left"
        return f"campaign {percent:.0f} %{ending}"

    def _share(self, metrics: Metrics) -> float:
        """Share of this trial that is done, 0 while the length of an epoch is unknown."""
        campaign = self._steps.campaign
        done = len(metrics.step_seconds)
        if campaign.steps is not None:
            return min(done / campaign.steps, 1.0)
        assert campaign.epochs is not None
        if metrics.accuracies:
            steps_an_epoch = metrics.accuracies[0][0]
            return min(done / (steps_an_epoch * campaign.epochs), 1.0)
        return 0.0

    def _finished_seconds(self) -> dict[str, float]:
        """Seconds of every other trial that is done, by its name."""
        seconds = {}
        for name in self._steps.trials:
            if name == self._trial.name:
                continue
            folder = self._folder(name)
            if (folder / "result.json").exists():
                try:
                    seconds[name] = Launch.read(folder / "launch.json").seconds
                except InputError:  # the trial is ending just now, or was run by hand
                    seconds[name] = 0.0
        return seconds

    def _seconds_left(self, finished: dict[str, float], share: float) -> float | None:
        elapsed = self._clock() - self._started
        by_strategy: dict[str, list[float]] = {}
        for name, seconds in finished.items():
            if seconds > 0:
                by_strategy.setdefault(self._steps.trials[name].strategy, []).append(seconds)
        if share > 0:
            by_strategy.setdefault(self._trial.strategy, []).append(elapsed / share)
        if not by_strategy:
            return None
        typical = {strategy: mean(seconds) for strategy, seconds in by_strategy.items()}
        fallback = mean(typical.values())
        left = max(typical.get(self._trial.strategy, fallback) - elapsed, 0.0)
        for name, trial in self._steps.trials.items():
            if name != self._trial.name and name not in finished:
                left += typical.get(trial.strategy, fallback)
        return left


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{5 * round(seconds / 5)} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
