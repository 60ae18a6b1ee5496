"""The training loop that all strategies share: segments, evaluations, checkpoints and stops."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import nn

from hpc_lpm.data.dataset import Dataset
from hpc_lpm.engine.batches import (
    MicroBatches,
    evaluation_micro_batches,
    training_micro_batches,
)
from hpc_lpm.engine.checkpoint.save import CheckpointedRun
from hpc_lpm.engine.checkpoint.store import BEST, FOLDER, Checkpoint, TrainedData, checkpoint_name
from hpc_lpm.engine.early_stopping import EarlyStop, WatchedMetric
from hpc_lpm.engine.evaluation import TEST, VALIDATION, Evaluation, combined
from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.history import History, next_drain
from hpc_lpm.engine.rank_engine import RankEngine
from hpc_lpm.engine.rewinding import Rewinding
from hpc_lpm.engine.run_reporter import RunReporter
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.stop_agreement import StopAgreement
from hpc_lpm.engine.stragglers import PassTimes
from hpc_lpm.errors import InputError, InterruptedTrainingError, TrainingError
from hpc_lpm.stop_signals import StopSignals, nothing_to_save


class TrainingLoop:
    """Trains a run to its end, or until a signal or lacking improvement stops it.

    Optimizer steps are trained in segments, each of which ends with a drain. A segment ends with
    the epoch, where the model is evaluated on all parts, and also where `--drain-at` asks for it,
    where a checkpoint or an evaluation inside the epoch is due, or where the ranks have agreed to
    stop. Evaluations are outside the training clock, and so is all of saving but the writing of
    files, which goes on behind the training.

    Args:
        context: the context of the run.
        dataset: what is trained and evaluated on.
        engine: trains this rank's part of the model.
        agreement: of the ranks on where a segment ends.
        watched: what evaluations are compared by; its part is evaluated inside epochs.
        steps_an_epoch: the optimizer steps of a whole epoch.
        out: the run's folder.
        signals: the stop signals that this process has received.
        reporter: shows progress and logs metrics; None on all ranks but the reporting one.
        independent: whether no rank waits for another; such runs are neither saved nor resumed.
        loaded_by: (r, R) where this rank loads the micro-batches with n mod R = r.
    """

    def __init__(
        self,
        context: RunContext,
        dataset: Dataset,
        engine: RankEngine,
        agreement: StopAgreement,
        watched: WatchedMetric,
        steps_an_epoch: int,
        out: Path,
        signals: StopSignals,
        reporter: RunReporter | None,
        *,
        independent: bool,
        loaded_by: tuple[int, int],
    ) -> None:
        self._context = context
        self._dataset = dataset
        self._engine = engine
        self._agreement = agreement
        self._loaded_by = loaded_by
        self._watched = watched
        self._steps_an_epoch = steps_an_epoch
        self._folder, self._best = out / FOLDER, out / BEST
        self._signals = signals
        self._reporter = reporter
        self._independent = independent
        self.history = History()
        self._saved: Path | None = None
        self._has_warned = self._is_stopping = False
        rewinds = context.settings.non_finite == "rewind"
        self._rewinding = Rewinding(context, engine, self._folder) if rewinds else None
        size = context.micro_batch_size
        parts = {VALIDATION: dataset.validation, TEST: dataset.test}
        self._parts = {
            name: evaluation_micro_batches(part, size)
            for name, part in parts.items()
            if part is not None
        }
        self._epoch_samples, self._epoch_seconds = 0, 0.0

    def resume(self, checkpoint: Checkpoint) -> None:
        """Restore the state that a checkpoint holds, to continue from there (collective).

        Raises:
            InputError: on every rank, if the checkpoint is damaged or belongs to another model.
        """
        self.history = self._engine.resume(checkpoint)
        self._saved = checkpoint.path

    def run(self) -> None:
        """Train to the end.

        Raises:
            InterruptedTrainingError: on every rank, once a signal has stopped the run and its state
                has been saved.
            TrainingError: if training, evaluating or saving fails.
        """
        if not self._independent:
            self._context.job.barrier()  # no rank may be left where a signal is not agreed upon
        self._signals.begin_training()
        while not self._has_ended() or self._evaluation_is_due():
            if not self._has_ended():
                self._stop_if_asked()
            if self._evaluation_is_due():
                self._evaluate()
            else:
                self._train_segment()
            if not self._evaluation_is_due():
                self._save_if_due()
        self._engine.finish_saving()

    @property
    def stopped_early(self) -> EarlyStop | None:
        """Why the run ends where it is, before its planned end; None if it does not."""
        step = self.history.step
        if step >= self._context.updates:
            return None
        return self._watched.stop(self.history.evaluations, step)

    @property
    def best_evaluation(self) -> Evaluation | None:
        """The best evaluation so far."""
        return self._watched.best(self.history.evaluations)

    def _has_ended(self) -> bool:
        return self.history.step >= self._context.updates or self.stopped_early is not None

    def _evaluation_is_due(self) -> bool:
        return self._epoch_is_to_evaluate() or self._is_due_inside_epoch()

    def _epoch_is_to_evaluate(self) -> bool:
        epochs = self.history.step / self._steps_an_epoch
        whole = math.ceil(epochs) if self._has_ended() else math.floor(epochs)
        return self.history.epochs_evaluated < whole

    def _is_due_inside_epoch(self) -> bool:
        step, every = self.history.step, self._context.settings.evaluate_every
        return every > 0 and step % every == 0 and self.history.evaluated_step < step

    @property
    def _planned_seconds(self) -> list[float]:
        """What the plan expects of each rank for one pass of a micro-batch, empty without one."""
        context = self._context
        if context.plan is None:
            return []
        of_devices = [0.0] * context.placement.devices
        for stage, planned in enumerate(context.plan.stages):
            device = context.placement.device(stage)
            of_devices[device] += planned.compute_seconds / context.plan.chunks
        return [seconds for seconds in of_devices for _ in range(context.replicas)]

    def _train_segment(self) -> None:
        history, context, first = self.history, self._context, self.history.step
        end = next_drain(context.settings, first, self._steps_an_epoch, context.updates)
        batches = self._batches(first, end)
        self._engine.begin_segment()
        self._agreement.begin_segment(end - first)
        self._load(batches)
        for step in range(end - first):
            self._ask_where_to_stop(step)
            if step == self._agreement.end:
                break
            self._engine.train_micro_batches(batches.between(step, step + 1))
        self._engine.end_segment()
        history.step = first + self._agreement.end
        fault = self._rewinding.fault_before(history.step) if self._rewinding else None
        if fault is not None:
            context.recorder.cut_after(fault)
            history.step = fault + 1
        self._log_norms()
        self._epoch_samples += sum(batches.step_samples()[: history.step - first])
        self._epoch_seconds += context.recorder.segments[-1].end_seconds
        if fault is not None:
            self._rewind(fault)
        elif not self._epoch_is_to_evaluate():
            history.drains.append(history.step)

    def _rewind(self, fault: int) -> None:
        """Go back to the last checkpoint, and leave out the steps from there to this one."""
        assert self._rewinding is not None
        history = self.history
        self._engine.finish_saving()
        sentence = self._rewinding.rewind(fault, history)
        if self._reporter:
            self._reporter.rewound(
                sentence,
                steps=history.step,
                epochs=history.epochs_evaluated,
                evaluated=history.evaluated_step,
            )
        # So that a run which is interrupted now does not come to the same fault again.
        self._save()

    def _ask_where_to_stop(self, step: int) -> None:
        """Ask, before a step of the segment, where training stops (see `StopAgreement`)."""
        try:
            self._agreement.begin_step(step)
        except BoundaryError as error:
            rank = self._context.job.rank
            raise TrainingError(f"rank {rank}, step {step} of the segment: {error}.") from error

    def _load(self, batches: MicroBatches) -> None:
        """Say which micro-batches this rank will load next."""
        first, every = self._loaded_by
        self._context.loading.begin(batches, range(first, len(batches), every))

    def _log_norms(self) -> None:
        """Report the norms that each stage has kept (collective, unless ranks are independent)."""
        context = self._context
        if not context.settings.log_norms:
            return
        own = context.recorder.take_norms()
        of_ranks = [own] if self._independent else context.job.all_gather(own)
        # Replicas of a stage, and ranks that hold the whole model, have the same.
        of_stages = of_ranks[:: context.copies] if context.plan else of_ranks[:1]
        if self._reporter:
            self._reporter.norms(of_stages)

    def _batches(self, first: int, end: int) -> MicroBatches:
        settings, context = self._context.settings, self._context
        epoch = first // self._steps_an_epoch
        before = epoch * self._steps_an_epoch
        return training_micro_batches(
            self._dataset.train,
            batch_size=settings.batch_size,
            micro_batches=settings.micro_batches * context.replicas,
            steps=end - before,
            seed=settings.seed,
            epoch=epoch,
            last_batch=settings.last_batch,
            replicas=context.replicas,
        ).between(first - before, end - before)

    def _evaluate(self) -> None:
        history = self.history
        after_epoch = self._epoch_is_to_evaluate()
        before = [each for each in history.evaluations if each.step == history.step]
        for each in before:
            # A run that stops early makes an evaluation inside an epoch one of its last.
            each.after_epoch = after_epoch
        parts = list(self._parts) if after_epoch else [self._watched.part]
        parts = [name for name in parts if name not in {each.part for each in before}]
        inside = (
            nullcontext() if after_epoch else _buffers_kept(self._engine.trained_state().layers)
        )
        with inside:
            found = [self._evaluated(part, after_epoch=after_epoch) for part in parts]
            history.evaluations += found
            history.epochs_evaluated += after_epoch
            if self._context.settings.keep_best and self.best_evaluation in found:
                self._save_in(self._best / checkpoint_name(history, evaluation_is_due=False))
        if self._reporter:
            self._report(found, after_epoch=after_epoch)
        if after_epoch:
            self._epoch_samples, self._epoch_seconds = 0, 0.0

    def _report(self, found: list[Evaluation], *, after_epoch: bool) -> None:
        assert self._reporter is not None
        if not after_epoch:
            self._reporter.evaluation(found, self._context.updates)
        elif found:
            rate = self._epoch_samples / self._epoch_seconds if self._epoch_seconds else None
            self._reporter.epoch(found, self._context.epochs, rate)

    def _evaluated(self, part: str, *, after_epoch: bool) -> Evaluation:
        context, segments = self._context, self._context.recorder.segments
        start = time.perf_counter()
        self._load(self._parts[part])
        asked = context.model.evaluation_metrics
        scores_here = self._engine.score_micro_batches(self._parts[part], asked)
        if not isinstance(scores_here, list):  # of a strategy of the user's own
            raise InputError(
                f"the runner of strategy {context.settings.strategy} returned "
                f"{type(scores_here).__name__} from evaluate, accepted is a list of "
                "MicroBatchScores: return one for each micro-batch."
            )
        seconds = time.perf_counter() - start
        ended = segments[-1].end_seconds if segments else 0.0
        of_ranks = context.job.all_gather((scores_here, seconds, ended))
        scores = [each for of_rank, _, _ in of_ranks for each in of_rank]
        loss, metrics, predictions = combined(scores, context.model.evaluation_metrics)
        ends = [ended for _, _, ended in of_ranks]
        return Evaluation(
            self.history.step,
            self.history.epochs_evaluated + 1,
            part,
            loss,
            metrics,
            predictions,
            seconds=max(seconds for _, seconds, _ in of_ranks),
            drain_seconds=max(ends) - min(ends),
            after_epoch=after_epoch,
        )

    def _save_if_due(self) -> None:
        settings, step = self._context.settings, self.history.step
        due = settings.checkpoint_steps > 0 and step % settings.checkpoint_steps == 0
        if (every := settings.checkpoint_epochs) and step == self.history.evaluated_step:
            if self._has_ended():
                due = True
            elif step % self._steps_an_epoch == 0:
                due = due or self.history.epochs_evaluated % every == 0
        if due:
            self._save()

    def _save(self) -> None:
        """Save a checkpoint of the current step, unless it exists already (collective)."""
        due = self._evaluation_is_due()
        path = self._folder / checkpoint_name(self.history, evaluation_is_due=due)
        if self._independent or path == self._saved:
            return
        self._save_in(path, self._context.settings.keep_checkpoints)
        self._saved = path

    def _save_in(self, path: Path, keep: int = 1) -> None:
        context = self._context
        self.history.micro_batches = self._engine.micro_batches
        reporter = self._reporter
        lacking = self._engine.save_as(
            path,
            self.history,
            CheckpointedRun(
                context.settings.model_dump(mode="json"),
                TrainedData.of(self._dataset),
                context.updates,
                self._steps_an_epoch,
                context.copies,
                context.cuts,
            ),
            keep,
            behind=not (self._is_stopping or self._has_ended()),
            first=reporter.sync if reporter else _nothing,
        )
        if lacking and reporter and not self._has_warned:
            self._has_warned = True
            reporter.message(
                "no memory is left for a copy of what a checkpoint holds on rank "
                f"{', '.join(map(str, lacking))}: training stops until the files are written"
            )

    def _stop_if_asked(self) -> None:
        """Save and stop if a rank received a signal (collective, unless ranks are independent).

        The ranks also tell each other here how long their passes take.
        """
        own, pace = self._signals.received, self._context.recorder.pace
        if self._independent:
            name = own
        else:
            told = (own, pace.times_to_compare() if pace else PassTimes())
            of_ranks = self._context.job.all_gather(told)
            name = next((asked for asked, _ in of_ranks if asked), None)
            if pace:
                pace.compare([times for _, times in of_ranks], self._planned_seconds)
        if name is None:
            return
        step, steps = self.history.step, self._context.updates
        where = f"interrupted by {name} after step {step} of {steps}"
        if self._independent:
            raise InterruptedTrainingError(
                f"{where}: strategy {self._context.settings.strategy} saves no checkpoint: run the "
                "command again."
            )
        if step == 0:
            raise InterruptedTrainingError(nothing_to_save(name))
        self._is_stopping = True
        self._save()
        self._engine.finish_saving()
        raise InterruptedTrainingError(
            f"{where}: checkpoint saved in {self._folder}; the same command with --resume "
            "continues the run."
        )


def _nothing() -> None:
    """Do nothing before a checkpoint may count."""


@contextmanager
def _buffers_kept(layers: Mapping[int, nn.Module]) -> Iterator[None]:
    """Put buffers back afterwards: replicas average theirs to evaluate, unseen by training."""
    buffers = [buffer for layer in layers.values() for buffer in layer.buffers()]
    saved = [buffer.clone() for buffer in buffers]
    yield
    with torch.no_grad():
        for buffer, value in zip(buffers, saved, strict=True):
            buffer.copy_(value)
