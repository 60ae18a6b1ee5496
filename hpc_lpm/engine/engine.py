"""The engine: trains a model batch by batch on this rank's device, with all others of the job."""

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores
from hpc_lpm.engine.runners.runner import RunContext, Runner, TrainedState


class Engine:
    """Trains one rank's part of a model, a batch at a time.

    A batch is begun once the next one is there, or once training drains: a stage then knows which
    messages will come, and posts receives for them early.

    Args:
        context: of the run.
        runner: this rank's part of the strategy.
    """

    def __init__(self, context: RunContext, runner: Runner) -> None:
        self._context = context
        self._runner = runner
        self._waiting: MicroBatches | None = None
        self._in_segment = False

    def begin_segment(self) -> None:
        """Wait for all ranks and start the clock; nothing is in flight before (collective)."""
        self._context.job.barrier()
        self._context.recorder.begin_segment()
        self._in_segment = True

    def train_micro_batches(self, batch: MicroBatches) -> None:
        """Train on the micro-batches of one optimizer step."""
        if not self._in_segment:
            self.begin_segment()
        if self._waiting is not None:
            self._runner.train(self._waiting, batch)
        self._waiting = batch

    def drain(self) -> None:
        """Finish everything that has been begun; no other rank is waited for after that."""
        if self._waiting is not None:
            self._runner.train(self._waiting, None)
            self._waiting = None
        if self._in_segment:
            self._context.recorder.end_segment()
            self._in_segment = False

    def score_micro_batches(self, batches: MicroBatches) -> list[MicroBatchScores]:
        """Return the scores of the micro-batches whose outputs this rank computes (collective)."""
        return self._runner.evaluate(batches)

    def trained_state(self) -> TrainedState:
        """Return this rank's state, which checkpoints are saved from and restored into."""
        return self._runner.state()

    @property
    def bytes_sent(self) -> int:
        """The bytes that this rank has sent while training."""
        return self._runner.bytes_sent()
