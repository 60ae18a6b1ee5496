"""One line that tells how far a trial and the whole campaign are."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.campaign.run_log import RunLog, read_run_log
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.errors import InputError

STEPS_OF_THROUGHPUT = 10
"""The throughput shown comes from the median time of this many last steps."""


class ProgressLine:
    """Reports the progress of one trial and of its campaign, as read from the files they write.

    Any process that sees the campaign's folder can do so, wherever the trials run.
    """

    def __init__(
        self, steps: Steps, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._steps = steps
        self._trial = steps.trials[name]
        # A contestant, and a run for a target, may have a length of its own.
        self._settings = steps.settings(name)
        self._clock = clock
        self._started = clock()

    def line(self) -> str:
        """Return the progress line of a running trial."""
        log = read_run_log(self._folder(self._trial.name) / "metrics.jsonl")
        return " | ".join([self._heading(), *self._trial_parts(log), self._whole(log)])

    def closing_line(self, exit_code: int) -> str:
        """Return the line that ends the trial."""
        log = read_run_log(self._folder(self._trial.name) / "metrics.jsonl")
        elapsed = f"{self._clock() - self._started:.0f} s"
        end = f"done in {elapsed}" if exit_code == 0 else f"failed after {elapsed}"
        return " | ".join([self._heading(), *self._trial_parts(log)[1:], end])

    def _folder(self, name: str) -> Path:
        return self._steps.folder.run(name)

    def _heading(self) -> str:
        campaign, trial = self._steps.campaign, self._trial
        words = [trial.label]
        words += [trial.model] if len(campaign.models) > 1 else []
        words += [trial.dataset] if len(campaign.datasets) > 1 else []
        position = f"[{trial.number}/{len(self._steps.trials)}]"
        length = f" length {trial.length}" if trial.length else ""
        return f"{position} {' '.join(words)} seed {trial.seed} repeat {trial.repeat}{length}"

    def _trial_parts(self, log: RunLog) -> list[str]:
        settings = self._settings
        done = len(log.step_seconds)
        if settings.steps is not None:
            parts = [f"step {done}/{settings.steps}" if done else "starting"]
        else:
            epoch = min(len(log.epoch_ends) + 1, settings.epochs or 1)
            parts = [f"epoch {epoch}/{settings.epochs}" if done else "starting"]
        recent = log.step_seconds[-STEPS_OF_THROUGHPUT:]
        if recent and median(recent) > 0:
            parts.append(f"{settings.batch_size / median(recent):.1f} samples/s")
        if log.evaluations:
            parts += _shown(log.evaluations[-1].values)
        return parts

    def _whole(self, log: RunLog) -> str:
        finished = self._finished_seconds()
        share = self._share(log)
        total = len(self._steps.trials)
        percent = 100 * (len(finished) + share) / total
        left = self._seconds_left(finished, share)
        ending = "" if left is None else f", about {_duration(left)} left"
        return f"campaign {percent:.0f} %{ending}"

    def _share(self, log: RunLog) -> float:
        """Return how much of this trial is done, 0 while the length of an epoch is unknown."""
        settings = self._settings
        done = len(log.step_seconds)
        if settings.steps is not None:
            return min(done / settings.steps, 1.0)
        assert settings.epochs is not None
        if log.epoch_ends:
            steps_an_epoch = log.epoch_ends[0]
            return min(done / (steps_an_epoch * settings.epochs), 1.0)
        return 0.0

    def _finished_seconds(self) -> dict[str, float]:
        """Return the seconds that every other finished trial took, by its name."""
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
        by_kind: dict[tuple[object, ...], list[float]] = {}
        for name, seconds in finished.items():
            if seconds > 0:
                by_kind.setdefault(_kind_of(self._steps.trials[name]), []).append(seconds)
        if share > 0:
            by_kind.setdefault(_kind_of(self._trial), []).append(elapsed / share)
        if not by_kind:
            return None
        typical = {kind: mean(seconds) for kind, seconds in by_kind.items()}
        fallback = mean(typical.values())
        left = max(typical.get(_kind_of(self._trial), fallback) - elapsed, 0.0)
        for name, trial in self._steps.trials.items():
            if name != self._trial.name and name not in finished:
                left += typical.get(_kind_of(trial), fallback)
        return left


def _kind_of(trial: Trial) -> tuple[object, ...]:
    """Return what trials have in common that are expected to take as long as each other."""
    return trial.model, trial.dataset, trial.label, trial.length


def _shown(values: dict[str, float | None]) -> list[str]:
    """Return an accuracy, or else the first number that an evaluation has found, in words."""
    numbers = {name: value for name, value in values.items() if value is not None}
    for name in ("test_accuracy", "validation_accuracy"):
        if name in numbers:
            return [f"accuracy {100 * numbers[name]:.1f} %"]
    return [f"{name.replace('_', ' ')} {value:.4g}" for name, value in numbers.items()][:1]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{5 * round(seconds / 5)} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
