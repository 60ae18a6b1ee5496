"""One run from its settings to its result."""

import math
import random
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from hpc_lpm.data.dataset import Dataset
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.batches import samples_of_steps, steps_per_epoch
from hpc_lpm.engine.checkpoint.agreeing_settings import agreeing_settings
from hpc_lpm.engine.checkpoint.load import finished_result
from hpc_lpm.engine.checkpoint.store import FOLDER, Checkpoint, remove_checkpoints
from hpc_lpm.engine.checkpoint.tensors import weights_sha256
from hpc_lpm.engine.environment import run_environment
from hpc_lpm.engine.history import History
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.learning_rate import rate_factor
from hpc_lpm.engine.loop import TrainingLoop
from hpc_lpm.engine.optimizer import check_optimizer
from hpc_lpm.engine.rank_meter import PeakMemory, RankMeter
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.records import RankRecord
from hpc_lpm.engine.recovery import check_recovery
from hpc_lpm.engine.registry import Strategy, strategy_named
from hpc_lpm.engine.result import RESULT, RunResult
from hpc_lpm.engine.run_reporter import RunReporter
from hpc_lpm.engine.runner import RunContext
from hpc_lpm.engine.stop_agreement import StopAgreement
from hpc_lpm.engine.times import chrome_trace, last_intervals, times_and_losses
from hpc_lpm.engine.update_rules import check_update_rules, check_warmup
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.registry import create_model
from hpc_lpm.options import TrainSettings
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profiling.timer import timer_for
from hpc_lpm.ranks import local_rank_from_environment
from hpc_lpm.stop_signals import StopSignals


class Training:
    """A checked run: everything that can be wrong with its input is found in the constructor.

    `checkpoint` is the one that is gone on from, if any; `finished` is the result if there is
    nothing left to do.

    Args:
        settings: what to do.
        job: the ranks that do it.
        resume_from: the folder of a run to go on with, if it has a checkpoint.

    Raises:
        InputError: on every rank alike, before any rank talks to another.
    """

    def __init__(
        self, settings: TrainSettings, job: Job, *, resume_from: Path | None = None
    ) -> None:
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
        _check_drains(settings, self.steps, independent=self.strategy.independent)
        self.checkpoint: Checkpoint | None = None
        self.finished: RunResult | None = None
        if resume_from and not self.strategy.independent:
            self._find_what_there_is(resume_from)

    def _find_what_there_is(self, folder: Path) -> None:
        stages = len(self.plan.stages) if self.plan else 1
        settings, layers = agreeing_settings(self.settings), len(self.model.layers)
        cuts = list(self.plan.cuts) if self.plan else [0, layers]
        self.finished = finished_result(folder / RESULT, settings, cuts, self.job.size)
        self.checkpoint = Checkpoint.newest(folder / FOLDER)
        if self.checkpoint:
            self.checkpoint.check(settings, self.job.size // stages, layers)

    @property
    def history(self) -> History:
        """What there is of the run already."""
        return self.checkpoint.manifest.history if self.checkpoint else History()

    def is_reporting_rank(self) -> bool:
        """Tell if this rank sees the losses first: the last stage, or rank 0 without stages.

        Of several replicas it is the first.
        """
        return self.job.rank == (self.job.size - self.replicas if self.strategy.pipelined else 0)

    def learning_rate(self, step: int) -> float:
        """Return the rate of one optimizer step, counted from 0, before any discount of a stage."""
        factor = rate_factor(self.settings.learning_rate, step, self.steps)
        return self.settings.optimizer.lr * factor

    def run(
        self, out: Path, reporter: RunReporter | None, signals: StopSignals | None = None
    ) -> RunResult | None:
        """Train, evaluate after every epoch and write the run's folder; rank 0 returns the result.

        Args:
            out: the run's folder.
            reporter: given on the reporting rank alone.
            signals: what may ask to stop.

        Raises:
            InterruptedTrainingError: once a signal has stopped the training.
            TrainingError: if anything fails on the way.
        """
        with ExitStack() as resources:
            return self._run(out, reporter, signals or StopSignals(), resources)

    def _run(
        self,
        out: Path,
        reporter: RunReporter | None,
        signals: StopSignals,
        resources: ExitStack,
    ) -> RunResult | None:
        settings, job = self.settings, self.job
        torch.set_num_threads(settings.threads)
        _seed_everything(settings.seed)
        device = _device()
        if self.strategy.uses_transport:
            settings = _with_transport(settings, job, device)
        if job.rank == 0:
            self._remove_what_is_old(out)
        recorder = Recorder(
            settings.trace_steps,
            reporter.step if reporter else _ignore_step,
            timer_for(device),
            steps_before=self.history.step,
        )
        figures = RankMeter(recorder, PeakMemory(device))
        context = RunContext(
            settings,
            job,
            device,
            self.model,
            self.dataset,
            self.plan,
            recorder,
            StopAgreement(job, signals, independent=self.strategy.independent),
            self.steps,
            self.epochs,
            self.replicas,
            resources,
        )
        runner = self.strategy.start(context)
        loop = TrainingLoop(
            context,
            runner,
            self.steps_an_epoch,
            out,
            signals,
            figures,
            reporter,
            independent=self.strategy.independent,
        )
        if self.checkpoint:
            loop.resume(self.checkpoint)
        loop.run()
        fingerprint = weights_sha256(runner.state().layers, job)
        records: list[RankRecord] = job.all_gather(figures.record(runner.bytes_sent()))
        if job.rank != 0:
            return None
        segments = [record.segments for record in records]
        times = times_and_losses(
            segments,
            samples_of_steps(
                self.dataset.train, settings.batch_size, self.steps_an_epoch, self.steps
            ),
            settings.discard_steps,
            independent=self.strategy.independent,
            earlier=loop.history.earlier,
        )
        result = RunResult(
            strategy=settings.strategy,
            model=settings.model,
            dataset=settings.dataset,
            planner=self.plan.planner if self.plan else None,
            seed=settings.seed,
            ranks=job.size,
            replicas=self.replicas,
            test_accuracy=loop.history.test_accuracy,
            test_predictions=loop.test_predictions,
            weights_sha256=fingerprint,
            peak_memory_bytes=[record.peak_memory_bytes for record in records],
            bytes_sent=[record.bytes_sent for record in records],
            peak_in_flight=[record.peak_in_flight for record in records],
            lag_counts=[record.lag_counts for record in records],
            drains=loop.history.drains,
            interruptions=loop.history.interruptions,
            cuts=context.cuts,
            settings=settings.model_dump(mode="json"),
            environment=run_environment(),
            step_seconds=times.step_seconds,
            training_seconds=times.training_seconds,
            samples_per_second=times.samples_per_second,
            idle_share=times.idle_share,
            train_loss=times.train_loss,
            seconds_by_kind=times.seconds_by_kind,
        )
        write_text_atomically(out / "trace.json", chrome_trace(last_intervals(segments)))
        result.write(out / RESULT)
        return result

    def _remove_what_is_old(self, out: Path) -> None:
        """Remove what an earlier run left: a result, and checkpoints unless one is gone on from."""
        (out / RESULT).unlink(missing_ok=True)
        if self.checkpoint is None:
            remove_checkpoints(out / FOLDER)


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
    from hpc_lpm.engine.pipeline.transport.mpi_library import threads_may_call_mpi
    from hpc_lpm.engine.pipeline.transport.registry import with_transport
    from hpc_lpm.engine.topology import find_rank_locations

    return with_transport(
        settings, find_rank_locations(job, device), threads_may_call_mpi=threads_may_call_mpi()
    )


def _check_drains(settings: TrainSettings, steps: int, *, independent: bool) -> None:
    if settings.drain_at and settings.drain_at[-1] >= steps:
        raise InputError(
            f"--drain-at has step {settings.drain_at[-1]}, the run {steps} optimizer steps and a "
            f"drain at their end: give steps from 1 to {steps - 1}."
        )
    if settings.checkpoint_steps and independent:
        raise InputError(
            f"--checkpoint-steps: --strategy {settings.strategy} saves no checkpoint, its ranks "
            "wait for nobody: leave it out or use another strategy."
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
