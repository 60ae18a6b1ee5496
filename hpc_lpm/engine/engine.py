"""The engine: trains a model batch by batch, this rank's part of it on this rank's device."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, overload

import torch
from torch import Tensor

from hpc_lpm.activation import Activation
from hpc_lpm.engine.attendance import Attendance
from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.checkpoint.load import CheckpointReader
from hpc_lpm.engine.checkpoint.save import CheckpointedRun
from hpc_lpm.engine.checkpoint.store import Checkpoint, checkpoint_name, opened_alike
from hpc_lpm.engine.evaluation import MicroBatchScores, combined
from hpc_lpm.engine.given_batches import GivenBatches
from hpc_lpm.engine.history import History
from hpc_lpm.engine.job import not_all_came
from hpc_lpm.engine.rank_engine import RankEngine
from hpc_lpm.engine.rank_meter import RankMeter
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.runner import RunContext, Runner
from hpc_lpm.engine.script_end import Standing
from hpc_lpm.engine.script_metrics import Metric, Metrics, SeveralMetrics, named_metrics
from hpc_lpm.engine.script_updates import RatesOfBatches
from hpc_lpm.engine.times import chrome_trace, traced_intervals
from hpc_lpm.errors import InputError, TrainingError
from hpc_lpm.keyword_errors import options_as_keywords
from hpc_lpm.models.own_module import undisturbed
from hpc_lpm.models.state_names import under_outside_names

Batches = Iterable[tuple[Activation, Activation]]
"""Pairs (inputs, targets)."""


class Engine(RankEngine):
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
        batches: GivenBatches,
        standing: Standing,
        *,
        looks_ahead: bool,
    ) -> None:
        super().__init__(context, runner, meter, looks_ahead=looks_ahead)
        self._batches = batches
        self._attendance = Attendance(context.job)
        self._standing = standing
        self._closed = False
        self._failed = ""
        rates = runner.state().scheduler
        if not isinstance(rates, RatesOfBatches):
            raise InputError(
                f"strategy {context.settings.strategy} makes an optimizer of its own, accepted in "
                "a script is one whose runner asks context.updating for it: change its runner."
            )
        rates.end_updates()
        self._rates = rates

    @property
    def step(self) -> int:
        """The number of batches that this rank has been given, those before `load` included."""
        return self._step

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
        """The stage that this rank holds, from 0; 0 where every rank holds the whole model.

        The first of them, where the schedule has chunks.
        """
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
        with self._for_script():
            batch = given.training(inputs, targets, self._micro_batches)
            samples = len(batch.samples)
            with self._attendance.take_batch(samples):
                self._train(batch, given.passes_before(batch, training=True))

    def _train(self, batch: MicroBatches, passes: list[RehearsedPass]) -> None:
        if passes or len(batch) < batch.per_step:
            # Behind fewer micro-batches than usual the pipeline drains: those must be everywhere.
            self._attendance.meet(f"train_batch with {len(batch.samples)} samples")
        if passes:
            self.rehearse(passes, ())
        self._rates.take_batch()
        self._standing.step = self._step + 1
        with self._rates.updating():
            self.train_micro_batches(batch)

    def drain(self) -> None:
        """Finish everything that has been begun, so that all weights are up to date (collective).

        Training may go on afterwards.

        Raises:
            InputError: if a rank was given another number of batches.
            TrainingError: if a layer or the loss fails, or another rank does not answer in time.
        """
        self._drain("drain")

    def _drain(self, call: str) -> None:
        """Drain at the beginning of a call, which all ranks must make (collective)."""
        self._given(call)
        with self._for_script():
            self._attendance.meet(call)
            with self._rates.updating():
                self.end_segment()
        self._standing.step = None

    @overload
    def evaluate(self, batches: Batches, metric: Metric | None = None) -> float: ...

    @overload
    def evaluate(self, batches: Batches, metric: SeveralMetrics) -> dict[str, float]: ...

    def evaluate(self, batches: Batches, metric: Metrics = None) -> float | dict[str, float]:
        """Evaluate the model after draining (collective).

        Replicas of a stage average their buffers, such as running statistics, as at the end of an
        epoch of `hpc-lpm train`; nothing else changes.

        Args:
            batches: pairs (inputs, targets) as `train_batch` takes them, of any sizes, the same on
                every rank.
            metric: a function of (outputs, targets) that returns the mean over its samples, or a
                sum and what it is to be divided by; or the name of a metric of `hpc-lpm`. None for
                the loss alone; a list or dictionary of them for several.

        Returns:
            On every rank the mean over all samples: of the loss without a metric, else of the
            metric. For several metrics a dictionary of them by name, with the loss as "loss". Not a
            number stands for what is not finite.

        Raises:
            InputError: if there is no batch, or ranks were given different ones.
            TrainingError: if a layer, the loss or the metric fails.
        """
        given = self._given("evaluate")
        metrics = named_metrics(metric)
        self._drain("evaluate")
        scores: list[MicroBatchScores] = []
        number = 0
        for pair in batches:
            with self._for_script(), self._attendance.call("evaluate"):
                batch = given.evaluation(pair, number)
                number += len(batch)
                passes = given.passes_before(batch, training=False)
                self.rehearse(passes, list(metrics.values()))
                scores += self.score_micro_batches(batch, list(metrics.values()))
        with self._for_script():
            self._attendance.meet(f"the end of evaluate, which got {number} micro-batches,")
            found = self._context.job.all_gather(scores)
        if not number:
            raise InputError(
                "evaluate was given no batch, accepted is at least one (inputs, targets): an "
                "iterator that has ended yields no more."
            )
        everywhere = [score for of_rank in found for score in of_rank]
        loss, values, _ = combined(everywhere, list(metrics.values()))
        if metric is None:
            return _number(loss)
        if isinstance(metric, str) or callable(metric):
            return _number(next(iter(values.values())))
        named = zip(metrics, values.values(), strict=True)
        return {"loss": _number(loss), **{name: _number(value) for name, value in named}}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the model's weights and buffers after draining (collective).

        Returns:
            On rank 0 copies in host memory under the names of the module that was given to
            `initialize`, whose `load_state_dict` takes them; on all other ranks {}.
        """
        self._drain("state_dict")
        job, tag, state = self._context.job, self._context.job.own_tag(), self._runner.state()
        with self._for_script(), state.whole():
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
        with self._for_script():
            try:
                for rank in list(holders)[1:] if self._context.plan else ():
                    own |= job.receive(rank, tag)
            except TimeoutError:
                raise not_all_came(job) from None
        return under_outside_names(self._context.model, own)

    def save(self, folder: str | Path, *, behind: bool = False) -> None:
        """Save a checkpoint after draining: weights, optimizer, and where training is (collective).

        It replaces older ones in the folder once it is complete. The state of a rate scheduler is
        the script's own to save.

        Args:
            folder: the folder of checkpoints, which all ranks reach.
            behind: whether to return once all of it is copied in memory, and to write the files
                while training goes on. The next `save` into the folder, `load` and `close` wait
                until they are written.

        Raises:
            TrainingError: on every rank, if one of them cannot write. With `behind` a rank may
                raise it later, in `train_batch`.
        """
        self._drain("save")
        history = History(step=self._step, micro_batches=self._micro_batches)
        path = Path(folder) / checkpoint_name(history, evaluation_is_due=False)
        with self._for_script():
            about = CheckpointedRun.of_script(self._context, self._step)
            self.save_as(path, history, about, behind=behind)

    def load(self, folder: str | Path) -> None:
        """Go on from the newest checkpoint in a folder (collective).

        It may be one of `hpc-lpm train` too, and the model may have been cut otherwise.

        Args:
            folder: a folder of checkpoints, one of them, or the folder of a run.

        Raises:
            InputError: if there is none, a file is damaged, or it is one of another model.
        """
        self._drain("load")
        with self._for_script():
            self.finish_saving()
            self._restore(opened_alike(Path(folder), self._context.job))

    def _restore(self, checkpoint: Checkpoint) -> None:
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
        reader = CheckpointReader(checkpoint)
        if self._step == 0:
            self.resume(checkpoint)
        else:
            state = self._runner.state()
            with state.whole():
                reader.restore(state)
            self._step, self._micro_batches = saved.history.step, saved.history.micro_batches
        reader.restore_groups(self._runner.state())
        context.recorder.go_on_after(self._step)

    def trace(self) -> str:
        """Return what all ranks did at the beginning of the last drained training (collective).

        Returns:
            On rank 0 a Chrome trace as text, which Perfetto opens once it is in a file; on all
            other ranks "". It has as many steps as the option `trace_steps` says.
        """
        self._drain("trace")
        records = self._context.job.all_gather(self.record())
        if self._context.job.rank != 0:
            return ""
        segments = list(zip(*(each.segments for each in records), strict=True))
        return chrome_trace(traced_intervals(segments[-1:]))

    def close(self) -> None:
        """Drain, and release what the engine holds; it cannot be used afterwards (collective).

        An engine that has failed waits for no other rank any more, so that a script may close it in
        any case without hiding why it ends.

        Raises:
            TrainingError: on every rank, if a checkpoint could not be written behind training.
        """
        if self._closed:
            return
        if self._failed:
            # What it holds stays: others would report closed connections instead of the failure.
            self.leave_saving(TrainingError)
            self._closed = True
            return
        self._drain("close")
        with self._for_script():
            self.finish_saving()
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
        self.leave_saving(kind)
        if kind is None:
            self.close()

    @contextmanager
    def _for_script(self) -> Iterator[None]:
        """Leave the script's random generators and modes alone, and name keywords in errors.

        After a TrainingError ranks are not where the others take them to be.
        """
        with options_as_keywords(), undisturbed(self._context.device):
            try:
                yield
            except TrainingError as error:
                self._failed = str(error)
                raise

    def _given(self, call: str) -> GivenBatches:
        if self._failed:
            raise InputError(
                f"{call} was called on an engine that has failed ({self._failed.rstrip('.')}): let "
                "the script end, or make another engine with initialize."
            )
        if self._closed:
            raise InputError(
                f"{call} was called on an engine that has been closed: call it before close(), or "
                "make another engine with initialize."
            )
        return self._batches


def _number(value: float | None) -> float:
    return math.nan if value is None else value
