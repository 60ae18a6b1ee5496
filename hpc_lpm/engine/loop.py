"""The training loop that all strategies share: segments, evaluations, checkpoints and stops."""

import math
from pathlib import Path

from hpc_lpm.engine.batches import (
    MicroBatches,
    evaluation_micro_batches,
    training_micro_batches,
)
from hpc_lpm.engine.checkpoint.load import restore
from hpc_lpm.engine.checkpoint.save import CheckpointedRun, save_checkpoint
from hpc_lpm.engine.checkpoint.store import FOLDER, Checkpoint, checkpoint_name
from hpc_lpm.engine.evaluation import TEST, VALIDATION, Evaluation, combined
from hpc_lpm.engine.history import History, next_drain
from hpc_lpm.engine.rank_meter import RankMeter
from hpc_lpm.engine.run_reporter import RunReporter
from hpc_lpm.engine.runners.runner import RunContext, Runner
from hpc_lpm.engine.settings import computing_settings
from hpc_lpm.errors import InterruptedTrainingError
from hpc_lpm.stop_signals import StopSignals, nothing_to_save


class TrainingLoop:
    """Trains a run to its end, or until a signal stops it.

    Optimizer steps are trained in segments, each of which ends with a drain. A segment ends with
    the epoch, where the model is evaluated, and also where `--drain-at` asks for it, where a
    checkpoint is due or where the ranks have agreed to stop. Evaluations and checkpoints are
    outside the training clock.

    Args:
        context: the context of the run.
        runner: this rank's part of the strategy.
        steps_an_epoch: the optimizer steps of a whole epoch.
        out: the run's folder.
        signals: the stop signals that this process has received.
        meter: measures this rank's time, messages and memory.
        reporter: shows progress and logs metrics; None on all ranks but the reporting one.
        independent: whether no rank waits for another; such runs are neither saved nor resumed.
    """

    def __init__(
        self,
        context: RunContext,
        runner: Runner,
        steps_an_epoch: int,
        out: Path,
        signals: StopSignals,
        meter: RankMeter,
        reporter: RunReporter | None,
        *,
        independent: bool,
    ) -> None:
        self._context = context
        self._runner = runner
        self._steps_an_epoch = steps_an_epoch
        self._folder = out / FOLDER
        self._signals = signals
        self._reporter = reporter
        self._independent = independent
        self.history = History()
        self._meter = meter
        self._saved: Path | None = None
        size = context.micro_batch_size
        parts = {VALIDATION: context.dataset.validation, TEST: context.dataset.test}
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
        context = self._context
        self.history = restore(
            checkpoint, context.job, context.cuts, self._runner.state(), self._meter
        )
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
        history, steps = self.history, self._context.updates
        while history.step < steps or self._evaluation_is_due():
            if history.step < steps:
                self._stop_if_asked()
            if self._evaluation_is_due():
                self._evaluate()
                self._save_after_epoch()
            else:
                self._train_segment()

    def _evaluation_is_due(self) -> bool:
        done = self.history.step
        if done < self._context.updates:
            done -= done % self._steps_an_epoch
        return self.history.epochs_evaluated < math.ceil(done / self._steps_an_epoch)

    def _train_segment(self) -> None:
        history, context, first = self.history, self._context, self.history.step
        end = next_drain(context.settings, first, self._steps_an_epoch, context.updates)
        batches = self._batches(first, end)
        context.job.barrier()
        context.agreement.begin_segment(end - first)
        context.recorder.begin_segment()
        self._runner.train(batches)
        context.recorder.end_segment()
        self._log_norms()
        history.step = first + context.agreement.end
        self._epoch_samples += sum(batches.step_samples()[: history.step - first])
        self._epoch_seconds += context.recorder.segments[-1].end_seconds
        if not self._evaluation_is_due():
            history.drains.append(history.step)
            every = context.settings.checkpoint_steps
            if every and history.step % every == 0:
                self._save()

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
            context.dataset.train,
            batch_size=settings.batch_size,
            micro_batches=settings.micro_batches * context.replicas,
            steps=end - before,
            seed=settings.seed,
            epoch=epoch,
            last_batch=settings.last_batch,
            replicas=context.replicas,
        ).between(first - before, end - before)

    def _evaluate(self) -> None:
        history, context = self.history, self._context
        found = [self._evaluated(part, batches) for part, batches in self._parts.items()]
        history.evaluations += found
        history.epochs_evaluated += 1
        if self._reporter:
            rate = self._epoch_samples / self._epoch_seconds if self._epoch_seconds else None
            self._reporter.epoch(found, context.epochs, rate)
        self._epoch_samples, self._epoch_seconds = 0, 0.0

    def _evaluated(self, part: str, batches: MicroBatches) -> Evaluation:
        context = self._context
        of_ranks = context.job.all_gather(self._runner.evaluate(batches))
        scores = [each for of_rank in of_ranks for each in of_rank]
        loss, metrics, predictions = combined(scores, context.model.evaluation_metrics)
        epoch = self.history.epochs_evaluated + 1
        return Evaluation(self.history.step, epoch, part, loss, metrics, predictions)

    def _save_after_epoch(self) -> None:
        every = self._context.settings.checkpoint_epochs
        if not every:
            return
        finished = self.history.step == self._context.updates
        if finished or self.history.epochs_evaluated % every == 0:
            self._save()

    def _save(self) -> None:
        """Save a checkpoint of the current step, unless it exists already (collective)."""
        due = self._evaluation_is_due()
        path = self._folder / checkpoint_name(self.history, evaluation_is_due=due)
        if self._independent or path == self._saved:
            return
        if self._reporter:
            self._reporter.sync()
        context = self._context
        save_checkpoint(
            path,
            context.job,
            self._runner.state(),
            self._meter.record(self._runner.bytes_sent()),
            self.history,
            CheckpointedRun(
                computing_settings(context.settings.model_dump(mode="json")),
                context.copies,
                context.cuts,
            ),
        )
        self._saved = path

    def _stop_if_asked(self) -> None:
        """Save and stop if a rank received a signal (collective, unless ranks are independent)."""
        own = self._signals.received
        asked = [own] if self._independent else self._context.job.all_gather(own)
        name = next((name for name in asked if name), None)
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
        self._save()
        raise InterruptedTrainingError(
            f"{where}: checkpoint saved in {self._folder}; the same command with --resume "
            "continues the run."
        )
