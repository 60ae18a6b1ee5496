"""Trains one run, from its settings to its result."""

import math
import os
import random
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hpc_lpm.data.dataset import Dataset
from hpc_lpm.engine.batches import samples_of_steps, steps_per_epoch
from hpc_lpm.engine.checkpoint.load import finished_result
from hpc_lpm.engine.checkpoint.longer import changes_of_length, reopened, updates_of
from hpc_lpm.engine.checkpoint.own_files import (
    PENDING,
    remove_checkpoints,
    remove_checkpoints_after,
)
from hpc_lpm.engine.checkpoint.store import (
    BEST,
    FOLDER,
    Checkpoint,
    newest_sound_checkpoint,
)
from hpc_lpm.engine.checks import check_run
from hpc_lpm.engine.early_stopping import watched_metric
from hpc_lpm.engine.environment import own_device, run_environment
from hpc_lpm.engine.first_plan import PLAN, has_plan, make_plan, plan_of_rank_0, require_ranks
from hpc_lpm.engine.history import History
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.loading import (
    Loading,
    LoadingAhead,
    LoadingInTurn,
    check_processes,
    deaths_explained,
    recipe_of,
)
from hpc_lpm.engine.loop import TrainingLoop
from hpc_lpm.engine.optimizer import GroupRates
from hpc_lpm.engine.parameter_groups import ALL_ALIKE, Group, rule_of
from hpc_lpm.engine.rank_engine import RankEngine
from hpc_lpm.engine.rank_meter import PeakMemory, RankMeter
from hpc_lpm.engine.rank_notices import RankNotices
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.records import RankRecord
from hpc_lpm.engine.rehearsal import passes_of
from hpc_lpm.engine.result import RESULT, ParameterGroup, RunResult
from hpc_lpm.engine.run_reporter import RunReporter
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.settings import TrainSettings, computing_settings
from hpc_lpm.engine.stop_agreement import StopAgreement
from hpc_lpm.engine.stragglers import Pace
from hpc_lpm.engine.strategies.base import PlannedRun, Strategy, placement_of
from hpc_lpm.engine.strategies.registry import start_strategy, strategy_named
from hpc_lpm.engine.times import TRACE, chrome_trace, times_and_losses, traced_intervals
from hpc_lpm.engine.trackers import check_trackers
from hpc_lpm.engine.updating import UpdatingBySettings
from hpc_lpm.engine.watchdog import watched
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.registry import create_model
from hpc_lpm.options import flatten_settings
from hpc_lpm.planning.model_checks import check_layer_names, check_ranks
from hpc_lpm.planning.options import planned_optimizer
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.repricing import plan_for
from hpc_lpm.profiling.timer import timer_for
from hpc_lpm.random_streams import NUMPY_SEEDS
from hpc_lpm.stop_signals import StopSignals

_OF_PLANS = ("schedule", "lead", "weights", "prediction_rule", "chunks")
"""Options of a strategy's plans that change what a stage holds."""


class Training:
    """A run whose input has been checked: the constructor finds everything that is wrong with it.

    `plan_notice` tells the user that the plan was made for another use; it is None otherwise.
    `checkpoint` is the checkpoint to resume from, or None; `finished` is the result of a run that
    has nothing left to do, or None; `damage` is a sentence about a newer checkpoint that is not
    what was saved, or None; `resume_changes` say what a run of this length would have computed
    otherwise until that checkpoint, which a run of another length has saved. `watched` is what
    evaluations are compared by.

    Args:
        settings: the settings of the run.
        job: the ranks that train it.
        resume_from: the folder of the run to resume, which need not hold a checkpoint yet.
        plan_into: the folder in which to keep the plan that the ranks make if they are given none.

    Raises:
        InputError: on every rank alike, before any rank trains.
    """

    def __init__(
        self,
        settings: TrainSettings,
        job: Job,
        *,
        resume_from: Path | None = None,
        plan_into: Path | None = None,
    ) -> None:
        self.job = job
        self.strategy: Strategy = strategy_named(settings.strategy)
        self.strategy.require_installed()
        check_processes(settings.loader_workers)
        self.dataset: Dataset = job.once(recipe_of(settings).load)
        self.model: LayeredModel = job.once(
            lambda: create_model(
                settings.model,
                self.dataset.shape,
                settings.seed,
                loss=settings.loss,
                metrics=settings.metric,
            )
        )
        self.plan_notice: str | None = None
        first_plan: Plan | None = None
        if self.strategy.needs_plan and settings.plan is None and plan_into is not None:
            first_plan = self._first_plan(settings, plan_into, resumes=resume_from is not None)
            settings = settings.model_copy(update={"plan": plan_into / PLAN})
        self.settings = settings = self.strategy.with_clip_scope(settings)
        check_trackers(settings.tracker)
        self.plan = _plan_of_run(self.strategy, settings, self.model, job, first_plan)
        self.steps_an_epoch = steps_per_epoch(
            self.dataset.train, settings.batch_size, settings.last_batch
        )
        self.steps = updates_of(settings, self.steps_an_epoch)
        self.epochs = math.ceil(self.steps / self.steps_an_epoch)
        self.placement = placement_of(self.strategy, settings, self.plan)
        self.stages = self.placement.devices
        self.replicas = job.size // self.stages if self.plan else 1
        run = PlannedRun(
            settings,
            self.model,
            job.size,
            self.stages,
            len(self.dataset.train),
            self.steps,
            self.epochs,
            self.steps_an_epoch,
        )
        settings, self.recipe = self.strategy.with_recipe(run)
        # What the strategy refuses comes first: it names what the user can change.
        check_run(replace(run, settings=settings))
        self.plan_notice = self.plan_notice or self._notice_of_another_use()
        self.settings = settings
        self._groups = ALL_ALIKE
        self._simulated: GroupRates | None = None
        self.watched = watched_metric(settings, self.dataset, self.model)
        self.checkpoint: Checkpoint | None = None
        self.finished: RunResult | None = None
        self.resume_changes: list[str] = []
        self.damage: str | None = None
        if resume_from and not self.strategy.independent:
            self._find_earlier_work(resume_from)

    def _first_plan(self, settings: TrainSettings, folder: Path, *, resumes: bool) -> Plan:
        """Return the plan that these ranks make, or made before they resume (collective)."""
        makes = not (resumes and has_plan(self.job, folder))
        if makes:
            require_ranks(settings, self.strategy, self.job, self.model)
            make_plan(settings, self.strategy, self.job, self.dataset, self.model, folder)
        plan = plan_of_rank_0(self.job, folder)
        if makes:
            starts = plan.cuts[1:-1]
            cuts = f"layer{'s' if len(starts) > 1 else ''} {', '.join(map(str, starts))}"
            self.plan_notice = (
                f"no --plan was given: these ranks have profiled the model and cut it before "
                f"{cuts}, see {folder / PLAN}"
            )
        return plan

    def _find_earlier_work(self, folder: Path) -> None:
        settings, document = self.settings, self.settings.model_dump(mode="json")
        layers = len(self.model.layers)
        cuts = list(self.plan.cuts) if self.plan else [0, layers]
        computing = computing_settings(document)
        finished: RunResult | None = None
        if self.job.rank == 0:  # other nodes may not see it yet, as over NFS
            finished = finished_result(folder / RESULT, computing, cuts, self.job.size)
        self.finished = self.job.broadcast(finished)
        checkpoint, self.damage = newest_sound_checkpoint(folder / FOLDER, self.job)
        if checkpoint is None:
            return
        checkpoint.check(document, self.job.size // self.stages, layers)
        if self.finished is None:
            checkpoint.check_data(self.steps_an_epoch)
        self.resume_changes = changes_of_length(checkpoint, settings)
        history = checkpoint.manifest.history
        if not self.watched.stop(history.evaluations, history.step):
            history = reopened(history, settings, self.steps_an_epoch)
        history.resume_changes += self.resume_changes
        self.checkpoint = checkpoint.going_on(history)

    def _notice_of_another_use(self) -> str | None:
        """Return a sentence for the user if the plan was made for another use, else None.

        Raises:
            InputError: if this use exceeds the plan's memory limit.
        """
        settings = self.settings
        if self.plan is None or settings.plan is None:
            return None
        wanted = self.strategy.plan_options(settings)
        use = plan_for(
            self.plan,
            settings.plan,
            micro_batch=max(1, settings.micro_batch_size // self.replicas),
            micro_batches=settings.micro_batches,
            optimizer=planned_optimizer(settings.optimizer),
            replicas=self.replicas,
            **{name: wanted.get(name) for name in _OF_PLANS},
        )
        return use.notice

    @property
    def history(self) -> History:
        """The progress of the checkpoint to resume from, empty without one."""
        return self.checkpoint.manifest.history if self.checkpoint else History()

    def is_reporting_rank(self) -> bool:
        """Tell if this rank reports progress, because it is the first to see the losses."""
        return self.job.rank == self._reporting_rank

    @property
    def _reporting_rank(self) -> int:
        """The first replica of the last stage, or rank 0 where there are no stages."""
        last = self.placement.device(self.placement.stages - 1)
        return last * self.replicas if self.strategy.pipelined else 0

    def configuration(self) -> dict[str, object]:
        """Return what trackers are told of the run: its settings under dotted names, and its shape.

        `first_step` is the number of optimizer steps that a resumed run has done, else 0.
        """
        return {
            **flatten_settings(self.settings.model_dump(mode="json")),
            "epochs": self.epochs,
            "steps": self.steps,
            "steps_an_epoch": self.steps_an_epoch,
            "ranks": self.job.size,
            "stages": self.stages,
            "replicas": self.replicas,
            "first_step": self.history.step,
        }

    def learning_rate(self, step: int) -> float:
        """Return the rate of one optimizer step, counted from 0, before a stage's discount."""
        return self._rates.at(step)[0]

    def group_rates(self, step: int) -> list[float]:
        """Return the rates of `RunResult.parameter_groups` at a step, in order, likewise."""
        return self._rates.at(step) if self._groups.listed else []

    @property
    def _rates(self) -> GroupRates:
        if self._simulated is None:
            self._simulated = GroupRates(
                self.settings.optimizer,
                self.settings.learning_rate,
                list(self._groups.listed) or [Group()],
                self.steps,
            )
        return self._simulated

    def run(
        self, out: Path, reporter: RunReporter | None, signals: StopSignals | None = None
    ) -> RunResult | None:
        """Train, evaluate after every epoch and write the run's folder; rank 0 returns the result.

        Args:
            out: the run's folder.
            reporter: shows progress and logs metrics; None on all ranks but the reporting one.
            signals: the stop signals that this process has received; without them none is heeded.

        Raises:
            InterruptedTrainingError: once a signal has stopped the training.
            TrainingError: if anything fails while training.
        """
        with deaths_explained(self.job.rank), ExitStack() as resources:
            if self.job.rank == 0:
                self._remove_earlier_results(out)
            notices = RankNotices(
                self.job, self._reporting_rank, reporter, independent=self.strategy.independent
            )
            context = self._context(notices, resources)
            resources.enter_context(
                watched(
                    out,
                    self.job.rank,
                    # Ranks that one process plays cannot wait in vain.
                    self.job.size if self._is_of_processes else 1,
                    self.job.limit_seconds,
                    context.recorder.last_instruction,
                )
            )
            # Communicators are made before anything else is sent over MPI.
            rewinds = context.settings.non_finite == "rewind"
            agreement = StopAgreement(
                self.job,
                signals or StopSignals(),
                independent=self.strategy.independent,
                also=lambda: rewinds and context.recorder.first_non_finite is not None,
            )
            engine = RankEngine(
                context,
                start_strategy(self.strategy, context),
                RankMeter(context.recorder, PeakMemory(context.device)),
                looks_ahead=self.strategy.pipelined,
            )
            resources.push(engine.leave_saving)
            passes = passes_of(
                self.dataset, context.settings, context.micro_batch_size, self.replicas
            )
            engine.rehearse(passes, self.model.evaluation_metrics)
            self._groups, self._simulated = engine.trained_state().groups, None
            loop = TrainingLoop(
                context,
                self.dataset,
                engine,
                agreement,
                self.watched,
                self.steps_an_epoch,
                out,
                signals or StopSignals(),
                reporter,
                independent=self.strategy.independent,
                loaded_by=self._loaded_by,
            )
            if self.checkpoint:
                loop.resume(self.checkpoint)
            loop.run()
            fingerprint = engine.weights_sha256()
            records = self.job.all_gather(engine.record())
            notices.look()
            if self.job.rank != 0:
                return None
            result = self._result(context.settings, loop, records, fingerprint)
        segments = [*loop.history.earlier, *zip(*(each.segments for each in records), strict=True)]
        traced = segments if context.settings.trace_from is not None else segments[-1:]
        write_text_atomically(out / TRACE, chrome_trace(traced_intervals(traced)))
        result.write(out / RESULT)
        return result

    def _context(self, notices: RankNotices, resources: ExitStack) -> RunContext:
        """Set this process up for the run and return the context for the strategy's runner."""
        settings = self.settings
        torch.set_num_threads(settings.threads)
        _seed_everything(settings.seed)
        for name, value in self.strategy.environment(settings).items():
            os.environ.setdefault(name, value)
        device = own_device()
        recorder = Recorder(
            settings.trace_steps,
            notices.report_step,
            timer_for(device),
            steps_before=self.history.step,
            stops_at_non_finite=settings.non_finite == "stop",
            trace_from=settings.trace_from,
            # Ranks that one process plays wait for their turns within passes.
            pace=Pace(self.job.rank, notices.tell, steps_before=self.history.step)
            if self._is_of_processes
            else None,
        )
        return RunContext(
            self.strategy.settled(settings, self.job, device),
            self.job,
            device,
            self.model,
            self.plan,
            recorder,
            UpdatingBySettings(
                self.model, settings.optimizer, settings.learning_rate, self.steps, self.job
            ),
            self.steps,
            self.epochs,
            self.replicas,
            self.placement,
            resources,
            self._loading(resources),
            self.steps_an_epoch,
        )

    @property
    def _is_of_processes(self) -> bool:
        """Whether every rank is a process of its own."""
        return self.job.size == 1 or bool(self.job.communicator or self.job.store)

    @property
    def _loaded_by(self) -> tuple[int, int]:
        """(r, R) where this rank loads the micro-batches with n mod R = r."""
        if self.strategy.needs_plan:
            return self.job.rank % self.replicas, self.replicas
        return (self.job.rank, self.job.size) if self.strategy.data_parallel else (0, 1)

    def _loading(self, resources: ExitStack) -> Loading:
        placement, device = self.placement, self.job.rank // self.replicas
        inputs = not self.strategy.needs_plan or placement.device(0) == device
        last = placement.device(placement.stages - 1)
        targets = not self.strategy.needs_plan or last == device
        if not self.settings.loader_workers or not (inputs or targets):
            return LoadingInTurn()
        return LoadingAhead(
            recipe_of(self.settings),
            self.dataset,
            self.settings.loader_workers,
            inputs=inputs,
            targets=targets,
            resources=resources,
        )

    def _result(
        self,
        settings: TrainSettings,
        loop: TrainingLoop,
        records: list[RankRecord],
        fingerprint: str,
    ) -> RunResult:
        history = loop.history
        times = times_and_losses(
            [record.segments for record in records],
            samples_of_steps(
                self.dataset.train, settings.batch_size, self.steps_an_epoch, history.step
            ),
            settings.discard_steps,
            independent=self.strategy.independent,
            earlier=history.earlier,
        )
        return RunResult(
            strategy=settings.strategy,
            model=settings.model,
            dataset=settings.dataset,
            planner=self.plan.planner if self.plan else None,
            seed=settings.seed,
            ranks=self.job.size,
            replicas=self.replicas,
            test_accuracy=history.test_accuracy,
            test_predictions=history.evaluations[-1].predictions if history.test_accuracy else None,
            evaluations=history.evaluations,
            lower_is_better=[
                each.name for each in self.model.evaluation_metrics if not each.higher_is_better
            ],
            best_evaluation=loop.best_evaluation,
            stopped_early=loop.stopped_early,
            evaluation_seconds=sum(each.seconds for each in history.evaluations),
            drain_seconds=times.drain_seconds,
            weights_sha256=fingerprint,
            peak_memory_bytes=[record.peak_memory_bytes for record in records],
            bytes_sent=[record.bytes_sent for record in records],
            peak_in_flight=[record.peak_in_flight for record in records],
            lag_counts=[record.lag_counts for record in records],
            skipped_updates=[record.skipped_updates for record in records],
            stragglers=[each for record in records for each in record.straggles],
            drains=history.drains,
            interruptions=history.interruptions,
            parameter_groups=self._parameter_groups(),
            checkpoints_saved=records[0].saving.checkpoints,
            saving_copy_seconds=[record.saving.copy for record in records],
            saving_wait_seconds=[record.saving.wait for record in records],
            saving_behind_seconds=[record.saving.behind for record in records],
            rewinds=history.rewinds,
            resume_changes=history.resume_changes,
            recipe=self.recipe,
            cuts=list(self.plan.cuts) if self.plan else [0, len(self.model.layers)],
            settings=settings.model_dump(mode="json"),
            environment=run_environment(),
            step_seconds=times.step_seconds,
            training_seconds=times.training_seconds,
            samples_per_second=times.samples_per_second,
            idle_share=times.idle_share,
            train_loss=times.train_loss,
            seconds_by_kind=times.seconds_by_kind,
        )

    def _parameter_groups(self) -> list[ParameterGroup]:
        optimizer = self.settings.optimizer
        return [
            ParameterGroup(
                lr=optimizer.lr * group.lr_scale,
                weight_decay=optimizer.weight_decay if group.decays else 0.0,
                rule=rule_of(group, optimizer.name),
                parameters=names,
            )
            for group, names in self._groups.listed.items()
        ]

    def _remove_earlier_results(self, out: Path) -> None:
        """Remove an earlier result, and earlier checkpoints unless the run resumes from one."""
        (out / RESULT).unlink(missing_ok=True)
        if self.checkpoint is None:
            remove_checkpoints(out / FOLDER)
        elif self.damage:
            pending = self.checkpoint.path.name.endswith(PENDING)
            remove_checkpoints_after(out / FOLDER, self.history.step, pending=pending)
        # Of evaluations that are made again.
        remove_checkpoints_after(out / BEST, self.history.evaluated_step)


def _plan_of_run(
    strategy: Strategy,
    settings: TrainSettings,
    model: LayeredModel,
    job: Job,
    first_plan: Plan | None,
) -> Plan | None:
    """Return the plan that the settings name; `first_plan` is that one where it was just made."""
    if not strategy.needs_plan:
        return None
    if settings.plan is None:
        raise InputError(
            f"--strategy {strategy.name} needs --plan: make one with `hpc-lpm profile` and "
            "`hpc-lpm plan`."
        )
    plan = Plan.read(settings.plan) if first_plan is None else first_plan
    check_layer_names(plan, settings.plan, model, settings.remaking_commands(plan.devices))
    check_ranks(plan, settings.plan, job.size)
    return plan


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % NUMPY_SEEDS)
    torch.manual_seed(seed)
