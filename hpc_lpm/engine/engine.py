"""The engine: trains a model batch by batch, this rank's part of it on this rank's device."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from hpc_lpm.activation import Activation
from hpc_lpm.engine.attendance import Attendance
from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.checkpoint.load import CheckpointReader, restore
from hpc_lpm.engine.checkpoint.save import CheckpointedRun, save_checkpoint
from hpc_lpm.engine.checkpoint.store import Checkpoint, checkpoint_in, checkpoint_name
from hpc_lpm.engine.evaluation import MicroBatchScores, combined
from hpc_lpm.engine.given_batches import GivenBatches
from hpc_lpm.engine.history import History
from hpc_lpm.engine.rank_meter import RankMeter
from hpc_lpm.engine.records import RankRecord
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.runner import RunContext, Runner, TrainedState, buffers_kept
from hpc_lpm.engine.script_metrics import Metrics, named_metrics
from hpc_lpm.engine.script_updates import RatesOfBatches
from hpc_lpm.engine.times import chrome_trace, traced_intervals
from hpc_lpm.errors import InputError
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
from hpc_lpm.models.own_module import undisturbed
from hpc_lpm.models.state_names import under_outside_names


class Engine:
    """Trains one rank's part of a model, a batch at a time; `hpc_lpm.initialize` makes it.

    No stage waits for a flush or for another stage's update: when `train_batch` returns, part of
    the batch may still be on its way through the pipeline. A stage begins a batch once it has been
    given the next one, or once training drains, so that it knows which messages will come.

    All ranks call the same methods in the same order. An engine is a context manager, which is
    closed at the end.
    """

    def __init__(
        self,
        context: RunContext,
        runner: Runner,
        meter: RankMeter,
        *,
        looks_ahead: bool,
        batches: GivenBatches | None = None,
    ) -> None:
        self._context = context
        self._runner = runner
        self._meter = meter
        self._looks_ahead = looks_ahead
        self._batches = batches
        self._attendance = Attendance(context.job)
        self._waiting: MicroBatches | None = None
        self._in_segment = False
        self._step = self._micro_batches = 0
        self._closed = False

    @property
    def step(self) -> int:
        """The number of batches that this rank has been given, those before `load` included."""
        return self._step

    @property
    def micro_batches(self) -> int:
        """The number of micro-batches of these batches, over all replicas."""
        return self._micro_batches

    @property
    def last_loss(self) -> float | None:
        """The mean loss of the newest step that this rank has heard of; None before the first.

        The last stage computes it; it travels to the other stages with the gradients. With several
        replicas of every stage it is that of this rank's replica.
        """
        return self._context.recorder.last_loss

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of this rank's parameters, for a rate scheduler of torch or by hand.

        The rates and other settings that its groups have when a batch is given to `train_batch` are
        those of that batch's update, whenever the stage makes it.
        """
        return self._runner.state().optimizer

    @property
    def stage(self) -> int:
        """The stage that this rank holds, from 0; 0 where every rank holds the whole model."""
        return self._context.topology.stage if self._context.plan else 0

    def train_batch(self, inputs: Activation, targets: Activation) -> None:
        """Train on a batch: one optimizer step.

        Args:
            inputs: of the whole batch, the same on every rank; a tensor [samples, ...], or a tuple
                or dictionary of such tensors, as the model takes them. Only the first stage uses
                them.
            targets: likewise, as the loss takes them. Only the last stage uses them.

        Raises:
            InputError: if the batch has more samples than `batch_size`, ranks were given batches of
                other sizes or other numbers of them, or the engine was closed.
            TrainingError: if a layer or the loss fails, or another rank does not answer in time.
        """
        given = self._given("train_batch")
        with undisturbed(self._context.device), self._attendance.take_batch():
            batch = given.training(inputs, targets, self._micro_batches)
            if passes := given.passes_before(batch, training=True):
                self._attendance.meet(f"train_batch with {len(batch.samples)} samples")
                self.rehearse(passes, ())
            scheduler = self._runner.state().scheduler
            if isinstance(scheduler, RatesOfBatches):
                scheduler.take_batch()
            self.train_micro_batches(batch)

    def drain(self) -> None:
        """Finish everything that has been begun, so that all weights are up to date (collective).

        Training may go on afterwards.

        Raises:
            InputError: if a rank was given another number of batches.
            TrainingError: if a layer or the loss fails, or another rank does not answer in time.
        """
        self._given("drain")
        self._attendance.meet("drain")
        self._drained()

    def evaluate(
        self, batches: Iterable[tuple[Activation, Activation]], metric: Metrics = None
    ) -> Any:
        """Evaluate the model after draining; nothing that training depends on is changed.

        Args:
            batches: pairs (inputs, targets) as `train_batch` takes them, of any sizes, the same on
                every rank.
            metric: a function of (outputs, targets) that returns the mean over its samples, or a
                sum and what it is to be divided by; or the name of a metric of `hpc-lpm`. None for
                the loss alone; a list or dictionary of them for several.

        Returns:
            On every rank the mean over all samples: of the loss without a metric, else of the
            metric. For several metrics a dictionary of them by name, with the loss as "loss".

        Raises:
            InputError: if there is no batch, or ranks were given different ones.
            TrainingError: if a layer, the loss or the metric fails.
        """
        given = self._given("evaluate")
        metrics = named_metrics(metric)
        self.drain()
        scores: list[MicroBatchScores] = []
        number = 0
        with buffers_kept(self._runner.state().layers):
            for pair in batches:
                with undisturbed(self._context.device):
                    batch = given.evaluation(pair, number)
                    number += len(batch)
                    passes = given.passes_before(batch, training=False)
                    self.rehearse(passes, list(metrics.values()))
                    scores += self.score_micro_batches(batch, list(metrics.values()))
        found = self._context.job.all_gather((number, scores))
        _check_alike([count for count, _ in found])
        everywhere = [score for _, of_rank in found for score in of_rank]
        loss, values, _ = combined(everywhere, list(metrics.values()))
        if metric is None:
            return loss
        if len(metrics) == 1 and (isinstance(metric, str) or callable(metric)):
            return next(iter(values.values()))
        return {"loss": loss, **dict(zip(metrics, values.values(), strict=True))}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the model's weights and buffers after draining (collective).

        Returns:
            On rank 0 copies in host memory under the names of the module that was given to
            `initialize`, whose `load_state_dict` takes them; on all other ranks {}.
        """
        self.drain()
        job, tag, state = self._context.job, self._context.job.own_tag(), self._runner.state()
        own = {
            (index, name): tensor.detach().cpu().clone()
            for index, layer in state.layers.items()
            for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]
        }
        holders = range(0, job.size, self._context.copies)
        if job.rank != 0:
            if job.rank in holders and self._context.plan:
                job.send(own, 0, tag)
            return {}
        for rank in list(holders)[1:] if self._context.plan else ():
            own |= job.receive(rank, tag)
        return under_outside_names(self._context.model, own)

    def save(self, folder: str | Path) -> None:
        """Save a checkpoint after draining: weights, optimizer, and where training is (collective).

        It replaces older ones in the folder once it is complete. The state of a rate scheduler is
        the script's own to save.

        Args:
            folder: the folder of checkpoints, which all ranks reach.

        Raises:
            TrainingError: on every rank, if one of them cannot write.
        """
        self.drain()
        history = History(step=self._step, micro_batches=self._micro_batches)
        path = Path(folder) / checkpoint_name(history, evaluation_is_due=False)
        self.save_as(path, history, CheckpointedRun.of_script(self._context, self._step))

    def load(self, folder: str | Path) -> None:
        """Go on from the newest checkpoint in a folder (collective).

        It may be one of `hpc-lpm train` too, and the model may have been cut otherwise.

        Args:
            folder: a folder of checkpoints, one of them, or the folder of a run.

        Raises:
            InputError: if there is none, a file is damaged, or it is one of another model.
        """
        self.drain()
        checkpoint = checkpoint_in(Path(folder))
        context, saved = self._context, checkpoint.manifest
        found, accepted = (
            (saved.cuts[-1], saved.replicas),
            (len(context.model.layers), context.copies),
        )
        if found != accepted:
            raise InputError(
                f"checkpoint {checkpoint.path} has {found[0]} layers and {found[1]} copies of "
                f"each, this model has {accepted[0]} and {accepted[1]}: load one of the same model "
                "on as many replicas."
            )
        if self._step == 0:
            self.resume(checkpoint)
        else:
            CheckpointReader(checkpoint).restore(self._runner.state())
            self._step, self._micro_batches = saved.history.step, saved.history.micro_batches
        context.recorder.go_on_after(self._step)

    def trace(self) -> str:
        """Return what all ranks did at the beginning of the last drained training (collective).

        Returns:
            On rank 0 a Chrome trace as text, which Perfetto opens once it is in a file; on all
            other ranks "". It has as many steps as the option `trace_steps` says.
        """
        self.drain()
        records = self._context.job.all_gather(self.record())
        if self._context.job.rank != 0:
            return ""
        segments = list(zip(*(each.segments for each in records), strict=True))
        return chrome_trace(traced_intervals(segments[-1:]))

    def close(self) -> None:
        """Drain, and release what the engine holds; it cannot be used afterwards (collective)."""
        if self._closed:
            return
        self.drain()
        self._closed = True
        self._context.resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()

    def rehearse(self, passes: list[RehearsedPass], metrics: Iterable[EvaluationMetric]) -> None:
        """Run passes that leave no trace, to find mistakes and what training needs (collective)."""
        if passes:
            self._runner.rehearse(passes, list(metrics))

    def begin_segment(self) -> None:
        """Wait for all ranks and start the clock; nothing is in flight before (collective)."""
        self._context.job.barrier()
        self._context.recorder.begin_segment()
        self._in_segment = True

    def train_micro_batches(self, batch: MicroBatches) -> None:
        """Train on the micro-batches of one optimizer step, which are those of all replicas."""
        if not self._in_segment:
            self.begin_segment()
        if self._waiting is not None:
            self._runner.train(self._waiting, batch)
        self._waiting = batch
        self._step += 1
        self._micro_batches += len(batch)
        if not self._looks_ahead:
            self._train_waiting()
        elif len(batch) < batch.per_step:
            # The order of the steps behind one with fewer micro-batches is that of a new beginning.
            self._drained()

    def end_segment(self) -> None:
        """Finish all that has been begun and stop the clock; no rank is waited for after that."""
        self._drained()

    def _drained(self) -> None:
        self._train_waiting()
        if self._in_segment:
            self._context.recorder.end_segment()
            self._in_segment = False

    def _train_waiting(self) -> None:
        if self._waiting is not None:
            self._runner.train(self._waiting, None)
            self._waiting = None

    def score_micro_batches(
        self, batches: MicroBatches, metrics: Iterable[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Return loss and metrics of the micro-batches whose outputs this rank computes."""
        return self._runner.evaluate(batches, list(metrics))

    def trained_state(self) -> TrainedState:
        """Return this rank's state, which checkpoints are saved from and restored into."""
        return self._runner.state()

    def record(self) -> RankRecord:
        """Return what this rank has measured so far."""
        return self._meter.record(self._runner.bytes_sent())

    def save_as(self, path: Path, history: History, about: CheckpointedRun) -> None:
        """Save a checkpoint under this name and remove older ones beside it (collective)."""
        save_checkpoint(
            path, self._context.job, self._runner.state(), self.record(), history, about
        )

    def resume(self, checkpoint: Checkpoint) -> History:
        """Restore what a checkpoint holds before anything is trained; return how far it was.

        Raises:
            InputError: on every rank, if the checkpoint is damaged or belongs to another model.
        """
        context = self._context
        history = restore(checkpoint, context.job, context.cuts, self._runner.state(), self._meter)
        self._step, self._micro_batches = history.step, history.micro_batches
        return history

    def _given(self, call: str) -> GivenBatches:
        if self._closed:
            raise InputError(
                f"{call} was called on an engine that has been closed: call it before close(), or "
                "make another engine with initialize."
            )
        assert self._batches is not None, "this engine is given its batches by a run"
        return self._batches


def _check_alike(counts: list[int]) -> None:
    if len(set(counts)) > 1:
        other = next(rank for rank, count in enumerate(counts) if count != counts[0])
        raise InputError(
            f"evaluate was given batches of {counts[0]} micro-batches on rank 0 and of "
            f"{counts[other]} on rank {other}: give every rank the same batches."
        )
    if not counts[0]:
        raise InputError("evaluate was given no batch: give it at least one, (inputs, targets).")
