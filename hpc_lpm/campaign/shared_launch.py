"""Trials of one model and data set that share one launch of their ranks, and take turns on them.

The start of many ranks takes longer than a short training, and trials that run seconds apart are
compared on the same machine, whatever its speed does within minutes. The first trial of a group
whose turn comes starts the ranks, which train the others of the group too, each into a folder
beside the runs. The jobs of the others find their results there.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.engine.result import RESULT
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.files import VersionedFile

LAUNCH = "shared-launch.json"
"""The record of the launch that has trained a run, beside its result."""


class Turns(VersionedFile):
    """Which trials a launch trains in turn: the settings and the folder of each, by its name."""

    kind: ClassVar[str] = "request for trials in turn"

    settings: dict[str, dict[str, Any]]
    folders: dict[str, str]


class Turn(VersionedFile):
    """The trial that trains now, to be blamed if the launch ends with it."""

    kind: ClassVar[str] = "record of a turn"

    running: str | None = None


class Failed(VersionedFile):
    """The trials with which a shared launch has ended: each is trained on ranks of its own."""

    kind: ClassVar[str] = "record of failed turns"

    trials: tuple[str, ...] = ()


class SharedFolder:
    """The folder of what the shared launches of one call of Snakemake have trained."""

    def __init__(self, steps: Steps, call: str) -> None:
        self._steps = steps
        self.root = steps.folder.root / "shared" / call

    def run(self, name: str) -> Path:
        """Return the folder of a trial until its own job takes it over."""
        return self.root / self._steps.folder.run_name(name)

    @property
    def _failed(self) -> Path:
        return self.root / "failed.json"

    def failed(self) -> tuple[str, ...]:
        """Return the trials with which a shared launch has ended."""
        return Failed.read(self._failed).trials if self._failed.exists() else ()

    def add_failed(self, name: str) -> None:
        """Note that a shared launch has ended with a trial."""
        Failed(trials=(*self.failed(), name)).write(self._failed)

    def trained(self, name: str) -> bool:
        """Tell if a launch has trained a trial, and has recorded how it went."""
        return all((self.run(name) / file).exists() for file in (RESULT, LAUNCH))

    def take_over(self, name: str) -> bool:
        """Move what was trained of a trial to its folder; tell if there was a result."""
        found = self.run(name)
        if not (found / RESULT).exists():
            return False
        run = self._steps.folder.run(name)
        run.mkdir(parents=True, exist_ok=True)
        for path in found.iterdir():
            target = run / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.replace(target)
        found.rmdir()
        return True

    def waiting(self, name: str) -> list[Trial]:
        """Return the trials that can share a launch with one, itself included, in their order.

        They are those of its model and data set that start as many ranks in the same way, have not
        been trained, by an earlier launch either, and wait for nothing that is not there.
        """
        steps, first = self._steps, self._steps.trials[name]
        alike = _start_of(steps, first)
        left_out = self.failed()
        once: dict[str, object] = {first.strategy: _set_once(steps, first)}
        found: list[Trial] = []
        for trial in steps.trials.values():
            same = (trial.model, trial.dataset) == (first.model, first.dataset)
            if not same or trial.name in left_out or _start_of(steps, trial) != alike:
                continue
            run = steps.folder.run(trial)
            finished = any((run / file).exists() for file in steps.run_files)
            if finished or self.trained(trial.name):
                continue
            if not all(Path(path).exists() for path in _needed(steps, trial)):
                continue
            # What an engine reads once would be that of the first for all.
            if once.setdefault(trial.strategy, _set_once(steps, trial)) == _set_once(steps, trial):
                found.append(trial)
        return found


def _needed(steps: Steps, trial: Trial) -> Iterator[str]:
    yield from steps.runs[trial.name].inputs
    if trial.planner:
        yield str(steps.folder.plan(trial))


def _start_of(steps: Steps, trial: Trial) -> tuple[object, ...]:
    choice = steps.choice(trial)
    threads = steps.settings(trial.name).threads
    return trial.processes, threads, choice.style if choice else None


def _set_once(steps: Steps, trial: Trial) -> dict[str, object]:
    own = steps.settings(trial.name).own.model_dump()
    return {name: own[name] for name in sorted(strategy_named(trial.strategy).set_once)}


def train_in_turn(request: Path, say: Callable[[str], None]) -> None:
    """Train the trials of a request, one after the other, on the ranks of this job (collective).

    A trial that is refused leaves no result; its own job says why.
    """
    # Imported here, because they import torch and start MPI.
    import gc

    from hpc_lpm.engine.job import start_job
    from hpc_lpm.engine.settings import checked_settings
    from hpc_lpm.engine.training import Training

    turns = Turns.read(request)
    job = start_job(parallel=True)
    for number, (name, settings) in enumerate(turns.settings.items(), start=1):
        if job.rank == 0:
            Turn(running=name).write(request.with_suffix(".turn.json"))
            say(f"{number} of {len(turns.settings)} on shared ranks: {name}")
        folder = Path(turns.folders[name])
        # Written under another name, so that nobody takes half of a run for a whole one.
        aside = folder.with_name(f".{folder.name}")
        try:
            result = Training(checked_settings(**settings), job).run(aside, None)
        except InputError as error:  # on every rank alike
            if job.rank == 0:
                say(f"{name} is refused: {error}")
            continue
        job.barrier()  # all have written what they write
        if result is not None:
            aside.replace(folder)
        gc.collect()
