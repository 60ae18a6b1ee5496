"""One run from its settings to its result: the loop that all strategies share."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpc_lpm.data.dataset import Dataset
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.batches import (
    evaluation_micro_batches,
    steps_per_epoch,
    training_micro_batches,
)
from hpc_lpm.engine.environment import run_environment
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.memory import PeakMemory
from hpc_lpm.engine.progress import RunReporter
from hpc_lpm.engine.recorder import EpochRecord, Interval, Recorder
from hpc_lpm.engine.registry import Strategy, strategy_named
from hpc_lpm.engine.result import RunResult
from hpc_lpm.engine.runner import RunContext
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.trace import chrome_trace
from hpc_lpm.engine.weights import weights_sha256
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.plan import Plan
from hpc_lpm.ranks import local_rank_from_environment


class Training:
    """A checked run: everything that can be wrong with its input is found in the constructor.

    Raises:
        InputError: on every rank alike, before any rank talks to another.
    """

    def __init__(self, settings: TrainSettings, job: Job) -> None:
        self.settings = settings
        self.job = job
        self.strategy: Strategy = strategy_named(settings.strategy)
        self.dataset: Dataset = load_dataset(settings.dataset, settings.data_dir)
        self.model: LayeredModel = create_model(settings.model, self.dataset.shape)
        self.plan = _checked_plan(self.strategy, settings, self.model, job)
        self.steps_an_epoch = steps_per_epoch(self.dataset.train, settings.batch_size)
        self.steps = settings.steps or self.steps_an_epoch * (settings.epochs or 0)
        self.epochs = math.ceil(self.steps / self.steps_an_epoch)
        if self.strategy.name == "horovod":
            _check_horovod(settings, job)

    def is_reporting_rank(self) -> bool:
        """Tell if this rank sees the losses first: the last stage, or rank 0 without stages."""
        return self.job.rank == (self.job.size - 1 if self.strategy.pipelined else 0)

    def run(self, out: Path, reporter: RunReporter | None) -> RunResult | None:
        """Train, evaluate after every epoch and write the run's folder; rank 0 returns the result.

        Args:
            out: the run's folder.
            reporter: given on the reporting rank alone.
        """
        settings, job = self.settings, self.job
        torch.set_num_threads(settings.threads)
        _seed_everything(settings.seed)
        device = _device()
        recorder = Recorder(settings.trace_steps, reporter.step if reporter else _ignore_step)
        memory = PeakMemory(device)
        runner = self.strategy.start(
            RunContext(settings, job, device, self.model, self.dataset, self.plan, recorder)
        )
        test = evaluation_micro_batches(self.dataset.test, settings.micro_batch_size)
        predictions = sum(test.targets(n).numel() for n in range(len(test)))
        if self.strategy.independent:
            predictions *= job.size
        accuracy: list[float] = []
        for epoch in range(self.epochs):
            steps = min(self.steps_an_epoch, self.steps - epoch * self.steps_an_epoch)
            batches = training_micro_batches(
                self.dataset.train,
                batch_size=settings.batch_size,
                micro_batches=settings.micro_batches,
                steps=steps,
                seed=settings.seed,
                epoch=epoch,
            )
            job.barrier()
            recorder.begin_epoch()
            runner.train(batches)
            recorder.end_epoch()
            accuracy.append(sum(job.all_gather(runner.evaluate(test))) / predictions)
            if reporter:
                rate = steps * settings.batch_size / recorder.epochs[-1].end_seconds
                reporter.epoch(epoch, self.epochs, accuracy[-1], rate)
        fingerprint = weights_sha256(runner.layers(), job)
        reports = job.all_gather(
            (
                recorder.epochs,
                memory.peak_bytes(),
                runner.bytes_sent(),
                recorder.peak_in_flight,
                dict(recorder.lag_counts),
            )
        )
        if job.rank != 0:
            return None
        records: list[list[EpochRecord]] = [report[0] for report in reports]
        result = RunResult(
            strategy=settings.strategy,
            model=settings.model,
            dataset=settings.dataset,
            planner=self.plan.planner if self.plan else None,
            seed=settings.seed,
            ranks=job.size,
            test_accuracy=accuracy,
            weights_sha256=fingerprint,
            peak_memory_bytes=[report[1] for report in reports],
            bytes_sent=[report[2] for report in reports],
            peak_in_flight=[report[3] for report in reports],
            lag_counts=[report[4] for report in reports],
            cuts=list(self.plan.cuts) if self.plan else [0, len(self.model.layers)],
            settings=settings.model_dump(mode="json"),
            environment=run_environment(),
            **times_and_losses(records, settings, independent=self.strategy.independent),
        )
        write_text_atomically(out / "trace.json", chrome_trace(_last_intervals(records)))
        result.write(out / "result.json")
        return result


def times_and_losses(
    records: list[list[EpochRecord]], settings: TrainSettings, *, independent: bool = False
) -> dict[str, Any]:
    """Return the result's fields on time and loss from the epochs of every rank.

    A step has ended when the slowest rank has ended it; losses of several ranks are averaged. Ranks
    that are `independent` train a batch each a step, others one together.
    """
    step_seconds: list[float] = []
    training_seconds = 0.0
    losses: list[float] = []
    for epoch in zip(*records, strict=True):
        ends = np.max([record.step_end_seconds for record in epoch], axis=0)
        step_seconds.extend(np.diff(ends, prepend=0.0).tolist())
        training_seconds += max(record.end_seconds for record in epoch)
        seen = [record.step_losses for record in epoch if record.step_losses]
        losses.extend(np.mean(seen, axis=0).tolist())
    counted = step_seconds[settings.discard_steps :] or step_seconds
    batches = len(records) if independent else 1
    busy = [sum(record.busy_seconds for record in rank) for rank in records]
    return {
        "step_seconds": step_seconds,
        "training_seconds": training_seconds,
        "samples_per_second": batches * settings.batch_size * len(counted) / sum(counted),
        "idle_share": [max(0.0, 1.0 - seconds / training_seconds) for seconds in busy],
        "train_loss": losses,
    }


def _last_intervals(records: list[list[EpochRecord]]) -> list[list[Interval]]:
    return [rank[-1].intervals for rank in records]


def _checked_plan(
    strategy: Strategy, settings: TrainSettings, model: LayeredModel, job: Job
) -> Plan | None:
    if not strategy.needs_plan:
        if not strategy.parallel and job.size != 1:
            raise InputError(
                f"--strategy {strategy.name} was started on {job.size} ranks, it runs on 1: "
                "start it without mpirun."
            )
        return None
    if settings.plan is None:
        raise InputError(
            f"--strategy {strategy.name} needs --plan: make one with `hpc-lpm profile` and "
            "`hpc-lpm plan`."
        )
    plan = Plan.read(settings.plan)
    if plan.cuts[-1] != len(model.layers):
        raise InputError(
            f"plan {settings.plan} covers {plan.cuts[-1]} layers, model {settings.model} has "
            f"{len(model.layers)}: plan this model's own profile."
        )
    if len(plan.stages) != job.size:
        raise InputError(
            f"plan {settings.plan} has {len(plan.stages)} stages but {job.size} "
            f"{'ranks were' if job.size > 1 else 'rank was'} started: start one rank a stage "
            f"(mpirun -n {len(plan.stages)}) or plan {job.size} stages."
        )
    return plan


def _check_horovod(settings: TrainSettings, job: Job) -> None:
    from hpc_lpm.engine.horovod import import_horovod

    import_horovod()
    if settings.micro_batches % job.size:
        raise InputError(
            f"--micro-batches {settings.micro_batches} is not divisible by the {job.size} ranks "
            "of horovod, which share them: use a multiple of the ranks."
        )


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank_from_environment() % torch.cuda.device_count())


def _ignore_step(step: int, loss: float | None, seconds: float) -> None:
    """Ranks that report nothing."""
