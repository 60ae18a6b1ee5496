"""The strategies by name. A new one is a runner in a file of its own and an entry here."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from hpc_lpm.engine.runner import RunContext, Runner
from hpc_lpm.errors import look_up


@dataclass(frozen=True)
class Strategy:
    """A way to train.

    `start` imports what it needs when called, so that listing strategies imports nothing heavy.
    `parallel` strategies run on several ranks; those that need a plan run one rank a stage. Where
    ranks are `independent`, each trains batches of its own and their throughputs add up. Those on
    our engine send their messages with one of our transports.
    """

    name: str
    description: str
    start: Callable[[RunContext], Runner]
    needs_plan: bool = False
    pipelined: bool = False
    independent: bool = False
    parallel: bool = True
    package: str | None = None
    uses_transport: bool = False

    def ranks(self, stages: int) -> int:
        """Return the number of ranks that a comparison on `stages` devices starts."""
        return stages if self.parallel else 1

    def available(self) -> bool:
        """Tell if the package behind an optional strategy is installed."""
        return self.package is None or find_spec(self.package) is not None


def _sequential(context: RunContext) -> Runner:
    from hpc_lpm.engine.sequential import SequentialRunner

    return SequentialRunner(context)


def _scheduled(schedule: str) -> Callable[[RunContext], Runner]:
    def start(context: RunContext) -> Runner:
        from hpc_lpm.engine.pipeline.runner import PipelineRunner

        return PipelineRunner(context, schedule)

    return start


def _deepspeed_1f1b(context: RunContext) -> Runner:
    from hpc_lpm.engine.pipeline.stock import StockPipelineRunner

    return StockPipelineRunner(context)


def _horovod(context: RunContext) -> Runner:
    from hpc_lpm.engine.horovod import HorovodRunner

    return HorovodRunner(context)


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy(
            "sequential",
            "one device, forward, backward and update one after the other",
            _sequential,
            parallel=False,
        ),
        Strategy(
            "limit",
            "the machine's limit: sequential training on every device at once, none waits for any",
            _sequential,
            independent=True,
        ),
        Strategy(
            "fbp",
            "merged stages, forward and backward passes in parallel, no flush (ours)",
            _scheduled("fbp"),
            needs_plan=True,
            pipelined=True,
            uses_transport=True,
        ),
        Strategy(
            "1f1b",
            "1F1B with a flush a step, on our engine",
            _scheduled("1f1b"),
            needs_plan=True,
            pipelined=True,
            uses_transport=True,
        ),
        Strategy(
            "gpipe",
            "all forwards, then all backwards, on our engine",
            _scheduled("gpipe"),
            needs_plan=True,
            pipelined=True,
            uses_transport=True,
        ),
        Strategy(
            "naive",
            "model parallel, one micro-batch in flight, on our engine",
            _scheduled("naive"),
            needs_plan=True,
            pipelined=True,
            uses_transport=True,
        ),
        Strategy(
            "deepspeed-1f1b",
            "DeepSpeed's own pipeline engine: 1F1B with a flush a step",
            _deepspeed_1f1b,
            needs_plan=True,
            pipelined=True,
        ),
        Strategy(
            "horovod",
            "data parallelism, gradients averaged by Horovod over MPI",
            _horovod,
            package="horovod",
        ),
    )
}


def strategy_named(name: str) -> Strategy:
    """Return a strategy by its name.

    Raises:
        InputError: if there is none of that name.
    """
    return look_up("strategy", name, STRATEGIES)
