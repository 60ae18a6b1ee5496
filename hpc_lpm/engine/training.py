"""One run from its settings to its result: the loop that all strategies share."""

import math
import random
from contextlib import ExitStack
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
from hpc_lpm.engine.learning_rate import rate_factor
from hpc_lpm.engine.memory import PeakMemory
from hpc_lpm.engine.optimizer import check_optimizer
from hpc_lpm.engine.progress import RunReporter
from hpc_lpm.engine.recorder import EpochRecord, Interval, Recorder
from hpc_lpm.engine.recovery import check_recovery
from hpc_lpm.engine.registry import Strategy, strategy_named
from hpc_lpm.engine.result import RunResult
from hpc_lpm.engine.runner import RunContext
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.trace import chrome_trace
from hpc_lpm.engine.update_rules import check_update_rules, check_warmup
from hpc_lpm.engine.weights import weights_sha256
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profiling.timer import timer_for
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
        check_optimizer(settings.optimizer)
        check_update_rules(
            settings.strategy,
            clip_norm=settings.clip_norm,
            clip_scope=settings.clip_scope,
            lr_discount=settings.lr_discount,
        )
        self.dataset: Dataset = load_dataset(settings.dataset, settings.data_dir)
        self.model: LayeredModel = create_model(settings.model, self.dataset.shape)
        self.plan = _checked_plan(self.strategy, settings, self.model, job)
        self.steps_an_epoch = steps_per_epoch(
            self.dataset.train, settings.batch_size, settings.last_batch
        )
        self.steps = settings.steps or self.steps_an_epoch * (settings.epochs or 0)
        self.epochs = math.ceil(self.steps / self.steps_an_epoch)
        self.replicas = job.size // len(self.plan.stages) if self.plan else 1
        _check_replicas(settings, self.replicas, len(self.dataset.train))
        check_recovery(settings, self.epochs, tied=bool(self.model.ties), replicas=self.replicas)
        if self.strategy.name == "horovod":
            _check_horovod(settings, job)
        if self.strategy.name == "deepspeed-1f1b":
            _check_whole_batches(settings, len(self.dataset.train))
            _check_untied(self.model)
        check_warmup(settings.learning_rate, self.steps)

    def is_reporting_rank(self) -> bool:
        """Tell if this rank sees the losses first: the last stage, or rank 0 without stages.

        Of several replicas it is the first.
        """
        return self.job.rank == (self.job.size - self.replicas if self.strategy.pipelined else 0)

    def learning_rate(self, step: int) -> float:
        """Return the rate of one optimizer step, counted from 0, before any discount of a stage."""
        factor = rate_factor(self.settings.learning_rate, step, self.steps)
        return self.settings.optimizer.lr * factor

    def run(self, out: Path, reporter: RunReporter | None) -> RunResult | None:
        """Train, evaluate after every epoch and write the run's folder; rank 0 returns the result.

        Args:
            out: the run's folder.
            reporter: given on the reporting rank alone.
        """
        with ExitStack() as resources:
            return self._run(out, reporter, resources)

    def _run(
        self, out: Path, reporter: RunReporter | None, resources: ExitStack
    ) -> RunResult | None:
        settings, job = self.settings, self.job
        torch.set_num_threads(settings.threads)
        _seed_everything(settings.seed)
        device = _device()
        if self.strategy.uses_transport:
            settings = _with_transport(settings, job, device)
        recorder = Recorder(
            settings.trace_steps, reporter.step if reporter else _ignore_step, timer_for(device)
        )
        memory = PeakMemory(device)
        runner = self.strategy.start(
            RunContext(
                settings,
                job,
                device,
                self.model,
                self.dataset,
                self.plan,
                recorder,
                self.steps,
                self.epochs,
                self.replicas,
                resources,
            )
        )
        micro_batch_size = settings.micro_batch_size // self.replicas
        test = evaluation_micro_batches(self.dataset.test, micro_batch_size)
        predictions = sum(test.targets(n).numel() for n in range(len(test)))
        if self.strategy.independent:
            predictions *= job.size
        accuracy: list[float] = []
        step_samples: list[int] = []
        for epoch in range(self.epochs):
            steps = min(self.steps_an_epoch, self.steps - epoch * self.steps_an_epoch)
            batches = training_micro_batches(
                self.dataset.train,
                batch_size=settings.batch_size,
                micro_batches=settings.micro_batches * self.replicas,
                steps=steps,
                seed=settings.seed,
                epoch=epoch,
                last_batch=settings.last_batch,
                replicas=self.replicas,
            )
            step_samples += batches.step_samples()
            job.barrier()
            recorder.begin_epoch()
            runner.train(batches)
            recorder.end_epoch()
            accuracy.append(sum(job.all_gather(runner.evaluate(test))) / predictions)
            if reporter:
                rate = sum(batches.step_samples()) / recorder.epochs[-1].end_seconds
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
            replicas=self.replicas,
            test_accuracy=accuracy,
            test_predictions=predictions,
            weights_sha256=fingerprint,
            peak_memory_bytes=[report[1] for report in reports],
            bytes_sent=[report[2] for report in reports],
            peak_in_flight=[report[3] for report in reports],
            lag_counts=[report[4] for report in reports],
            cuts=list(self.plan.cuts) if self.plan else [0, len(self.model.layers)],
            settings=settings.model_dump(mode="json"),
            environment=run_environment(),
            **times_and_losses(
                records,
                step_samples,
                settings.discard_steps,
                independent=self.strategy.independent,
            ),
        )
        write_text_atomically(out / "trace.json", chrome_trace(_last_intervals(records)))
        result.write(out / "result.json")
        return result


def times_and_losses(
    records: list[list[EpochRecord]],
    step_samples: list[int],
    discard_steps: int,
    *,
    independent: bool = False,
) -> dict[str, Any]:
    """Return the result's fields on time and loss from the epochs of every rank.

    A step has ended when the slowest rank has ended it; losses of several ranks are averaged over
    their samples. Ranks that are `independent` train a batch each a step, others one together.
    """
    step_seconds = _step_seconds(records)
    training_seconds = 0.0
    losses: list[float] = []
    for epoch in zip(*records, strict=True):
        training_seconds += max(record.end_seconds for record in epoch)
        samples = np.array([record.step_samples for record in epoch])
        summed = (samples * [record.step_losses for record in epoch]).sum(axis=0)
        losses.extend((summed / samples.sum(axis=0)).tolist())
    first = discard_steps if discard_steps < len(step_seconds) else 0
    clocks = [[rank] for rank in records] if independent else [records]
    rates = [sum(step_samples[first:]) / sum(_step_seconds(ranks)[first:]) for ranks in clocks]
    busy = [sum(record.busy_seconds for record in rank) for rank in records]
    return {
        "step_seconds": step_seconds,
        "training_seconds": training_seconds,
        "samples_per_second": sum(rates),
        "idle_share": [max(0.0, 1.0 - seconds / training_seconds) for seconds in busy],
        "train_loss": losses,
        "seconds_by_kind": [_seconds_by_kind(rank) for rank in records],
    }


def _step_seconds(records: list[list[EpochRecord]]) -> list[float]:
    """Return how long each step took, ended when the slowest of these ranks has ended it."""
    seconds: list[float] = []
    for epoch in zip(*records, strict=True):
        ends = np.max([record.step_end_seconds for record in epoch], axis=0)
        seconds.extend(np.diff(ends, prepend=0.0).tolist())
    return seconds


def _seconds_by_kind(records: list[EpochRecord]) -> dict[str, float]:
    kinds = {kind for record in records for kind in record.seconds_by_kind}
    return {
        kind: sum(record.seconds_by_kind.get(kind, 0.0) for record in records)
        for kind in sorted(kinds)
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
    if job.size % len(plan.stages):
        raise InputError(
            f"plan {settings.plan} has {len(plan.stages)} stages but {job.size} "
            f"{'ranks were' if job.size > 1 else 'rank was'} started: start one rank a stage "
            f"(mpirun -n {len(plan.stages)}), or R times as many for R replicas of every stage, or "
            f"plan {job.size} stages."
        )
    return plan


def _check_replicas(settings: TrainSettings, replicas: int, samples: int) -> None:
    if settings.batch_size % (settings.micro_batches * replicas):
        raise InputError(
            f"--batch-size {settings.batch_size} is not divisible by --micro-batches "
            f"{settings.micro_batches} times the {replicas} replicas of every stage that were "
            f"started: use a multiple of {settings.micro_batches * replicas}."
        )
    if settings.last_batch == "keep" and 0 < samples % settings.batch_size < replicas:
        raise InputError(
            f"--last-batch keep: the last batch of an epoch has {samples % settings.batch_size} "
            f"samples for {replicas} replicas of every stage: use --last-batch drop or another "
            "--batch-size."
        )


def _check_horovod(settings: TrainSettings, job: Job) -> None:
    from hpc_lpm.engine.horovod import import_horovod

    import_horovod()
    if settings.micro_batches % job.size:
        raise InputError(
            f"--micro-batches {settings.micro_batches} is not divisible by the {job.size} ranks "
            "of horovod, which share them: use a multiple of the ranks."
        )


def _check_whole_batches(settings: TrainSettings, samples: int) -> None:
    if settings.last_batch == "keep" and samples % settings.batch_size:
        raise InputError(
            f"--last-batch keep: the last batch of an epoch has {samples % settings.batch_size} of "
            f"{settings.batch_size} samples, and {settings.strategy} takes whole batches alone: "
            "use --last-batch drop or another strategy."
        )


def _check_untied(model: LayeredModel) -> None:
    if model.ties:
        raise InputError(
            f"--strategy deepspeed-1f1b: model {model.name} ties weights of two layers, which is "
            "not handed on to DeepSpeed: use an untied model or another strategy."
        )


def _with_transport(settings: TrainSettings, job: Job, device: torch.device) -> TrainSettings:
    from hpc_lpm.engine.pipeline.placement import find_placement
    from hpc_lpm.engine.pipeline.transport.choice import with_transport
    from hpc_lpm.engine.pipeline.transport.progress import threads_may_call_mpi

    return with_transport(
        settings, find_placement(job, device), threads_may_call_mpi=threads_may_call_mpi()
    )


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank_from_environment() % torch.cuda.device_count())
    # Events and streams that name no device are those of the current one.
    torch.cuda.set_device(device)
    return device


def _ignore_step(step: int, loss: float | None, seconds: float) -> None:
    """Ranks that report nothing."""
