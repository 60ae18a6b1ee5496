"""One rank's part of a training, step by step: what a run and a script have in common."""

from collections.abc import Callable, Iterable
from pathlib import Path

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.checkpoint.behind import CheckpointWriter
from hpc_lpm.engine.checkpoint.load import CheckpointReader, restore
from hpc_lpm.engine.checkpoint.save import CheckpointedRun, RankPart
from hpc_lpm.engine.checkpoint.store import Checkpoint
from hpc_lpm.engine.checkpoint.tensors import weights_sha256
from hpc_lpm.engine.collectives import run_on_every_rank
from hpc_lpm.engine.evaluation import MicroBatchScores
from hpc_lpm.engine.history import History
from hpc_lpm.engine.rank_meter import RankMeter
from hpc_lpm.engine.records import RankRecord
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.runner import RunContext, Runner, TrainedState
from hpc_lpm.errors import InputError
from hpc_lpm.models.evaluation_metrics import EvaluationMetric


class RankEngine:
    """Trains one rank's part of a model on the micro-batches of one optimizer step after the other.

    Args:
        context: of the run.
        runner: this rank's part of the strategy.
        meter: measures this rank's time, messages and memory.
        looks_ahead: whether a step is begun once the next one is there, or training drains; a stage
            then knows which messages will come, and posts receives for them early.
    """

    def __init__(
        self, context: RunContext, runner: Runner, meter: RankMeter, *, looks_ahead: bool
    ) -> None:
        self._context = context
        self._runner = runner
        self._meter = meter
        self._looks_ahead = looks_ahead
        self._waiting: MicroBatches | None = None
        self._in_segment = False
        self._step = self._micro_batches = 0
        self._writers: dict[Path, CheckpointWriter] = {}

    @property
    def micro_batches(self) -> int:
        """The number of micro-batches given so far, over all replicas, before a resumption too."""
        return self._micro_batches

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
        """Train on the micro-batches of one optimizer step, which are those of all replicas.

        Raises:
            TrainingError: if a layer or the loss fails, another rank does not answer in time, or
                this rank could not write a checkpoint meanwhile.
        """
        for writer in self._writers.values():
            writer.look()
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
            self.end_segment()

    def end_segment(self) -> None:
        """Finish all that has been begun and stop the clock; no rank is waited for after that."""
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

    def weights_sha256(self) -> str:
        """Return the SHA-256 over the layers of all ranks, in layer order (collective)."""
        state = self._runner.state()
        with state.whole():
            return weights_sha256(state.layers, self._context.job)

    def record(self) -> RankRecord:
        """Return what this rank has measured so far."""
        return self._meter.record(self._runner.bytes_sent())

    def save_as(
        self,
        path: Path,
        history: History,
        about: CheckpointedRun,
        keep: int = 1,
        *,
        behind: bool = False,
        first: Callable[[], None] = lambda: None,
    ) -> list[int]:
        """Save a checkpoint under this name (collective).

        An earlier one in the same folder is finished before.

        Args:
            path: the folder of the checkpoint.
            history: where the training is.
            about: what the run is.
            keep: how many checkpoints are left in that folder.
            behind: whether its files are written while training goes on, until `finish_saving`.
            first: what this rank does before the checkpoint may count.

        Returns:
            The ranks that have no memory for the copy that writing behind training takes.

        Raises:
            TrainingError: on every rank, if one of them cannot write.
        """
        writer = self._writers.setdefault(
            path.parent, CheckpointWriter(self._context.job, self._meter.saving)
        )
        writer.finish()
        state = self._runner.state()
        with state.whole():
            part = RankPart.of(state, self.record(), first)
            manifest = about.manifest(history, self._context.job.size)
            lacking = writer.begin(path, part, manifest, keep, behind=behind)
        if not behind:
            writer.finish()
        return lacking

    def finish_saving(self) -> None:
        """Wait until all checkpoints are complete (collective).

        Raises:
            TrainingError: on every rank, if one of them cannot write.
        """
        for writer in self._writers.values():
            writer.finish()

    def leave_saving(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give checkpoints a moment to become complete, if this rank ends by an error."""
        if kind is not None and issubclass(kind, Exception):
            for writer in self._writers.values():
                writer.leave()

    def resume(self, checkpoint: Checkpoint) -> History:
        """Restore what a checkpoint holds before anything is trained; return how far it was.

        Raises:
            InputError: on every rank, if the checkpoint is damaged or belongs to another model.
        """
        context, state = self._context, self._runner.state()
        with state.whole():
            history = restore(checkpoint, context.job, context.cuts, state, self._meter)
        self._step, self._micro_batches = history.step, history.micro_batches
        return history

    def put_back(self, checkpoint: Checkpoint) -> None:
        """Restore layers and optimizer at a drain; what was measured since stays (collective).

        Raises:
            InputError: on every rank, if the checkpoint is damaged.
        """
        state = self._runner.state()
        with state.whole():
            run_on_every_rank(
                self._context.job,
                lambda: CheckpointReader(checkpoint).restore(state),
                (InputError,),
                lambda problem, rank: InputError(f"{problem}{rank}."),
            )
