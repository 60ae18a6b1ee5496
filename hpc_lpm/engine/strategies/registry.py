"""The strategies by name. A new one is a class in a file of its own and a line in `STRATEGIES`.

Every schedule is a strategy too, under its own name, on our engine. Users add strategies without
touching the toolkit: `module:Class`, or an entry point of the group `hpc_lpm.strategies`.
"""

from typing import TYPE_CHECKING

from hpc_lpm.engine.strategies.asynchronous import (
    DelayedGradients,
    FeaturesReplay,
    FullyDecoupled,
    PipeDream,
    PipeDream2BW,
)
from hpc_lpm.engine.strategies.base import Strategy
from hpc_lpm.engine.strategies.ddp import DistributedDataParallel
from hpc_lpm.engine.strategies.deepspeed import DeepSpeed1F1B
from hpc_lpm.engine.strategies.fsdp import FullyShardedDataParallel
from hpc_lpm.engine.strategies.horovod import Horovod
from hpc_lpm.engine.strategies.intraop import IntraOp
from hpc_lpm.engine.strategies.limit import Limit
from hpc_lpm.engine.strategies.scheduled import ForwardBackwardParallel, Scheduled
from hpc_lpm.engine.strategies.sequential import Sequential
from hpc_lpm.engine.strategies.torch_pipelining import (
    Torch1F1B,
    TorchGPipe,
    TorchInterleaved,
    TorchZeroBubble,
)
from hpc_lpm.errors import InputError, TrainingError
from hpc_lpm.extensions import Registry, expect_type
from hpc_lpm.options import StrategyOptions
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.registry import SCHEDULES
from hpc_lpm.user_functions import describe_raised

if TYPE_CHECKING:
    from hpc_lpm.engine.runners.runner import RunContext, Runner


class StrategyRegistry(Registry[Strategy]):
    """The registered strategies, and one for each schedule that is not among them."""

    def names(self) -> list[str]:
        """Return all names; those of schedules that are not registered as strategies come last."""
        own = super().names()
        return [*own, *(name for name in SCHEDULES.names() if name not in own)]

    def _found(self, name: str) -> object:
        if name in SCHEDULES.names() or SCHEDULES.is_table(name):
            return SCHEDULES.named(name)
        return super()._found(name)


def _adapt(name: str, found: object) -> Strategy:
    kind = found if isinstance(found, type) else type(found)
    if issubclass(kind, Schedule):
        return Scheduled(SCHEDULES.named(name))
    strategy = expect_type("strategy", name, found, Strategy)  # type: ignore[type-abstract]
    options: object = strategy.options
    if not (isinstance(options, type) and issubclass(options, StrategyOptions)):
        raise InputError(
            f"strategy {name!r} has options {options!r}, accepted is a subclass of "
            f"{StrategyOptions.__module__}.StrategyOptions: declare its options in one."
        )
    try:
        strategy.name = name
    except AttributeError as error:
        raise InputError(
            f"strategy {name!r} cannot be given the name by which it is called ({error}): let "
            "`name` be a plain attribute of its class."
        ) from error
    return strategy


STRATEGIES = StrategyRegistry(
    "strategy",
    "hpc_lpm.strategies",
    {
        strategy.name: strategy
        for strategy in (
            Sequential(),
            IntraOp(),
            Limit(),
            ForwardBackwardParallel(SCHEDULES.named("fbp")),
            *(Scheduled(SCHEDULES.named(name)) for name in ("1f1b", "gpipe", "naive")),
            PipeDream(),
            PipeDream2BW(),
            DelayedGradients(),
            FeaturesReplay(),
            FullyDecoupled(),
            DeepSpeed1F1B(),
            Torch1F1B(),
            TorchGPipe(),
            TorchInterleaved(),
            TorchZeroBubble(),
            Horovod(),
            DistributedDataParallel(),
            FullyShardedDataParallel(),
        )
    },
    _adapt,
)


_OURS = "hpc_lpm."
_OF_RUNNERS = ("rehearse", "train", "evaluate", "state", "bytes_sent")
"""What is asked of every runner."""

DEFAULT_STRATEGY = Sequential.name
"""The strategy of a run that names none."""


def strategy_named(name: str) -> Strategy:
    """Return a strategy by its name.

    Raises:
        InputError: if no strategy has that name.
    """
    return STRATEGIES.named(name)


def start_strategy(strategy: Strategy, context: "RunContext") -> "Runner":
    """Start a strategy on this rank; a mistake in one of the user's comes back as a sentence.

    Raises:
        InputError: if one of the user's raises, or returns no runner.
        TrainingError: if it has waited for other ranks in vain.
    """
    if type(strategy).__module__.startswith(_OURS):
        return strategy.start(context)
    try:
        runner = strategy.start(context)
    except (InputError, TrainingError):
        raise
    except Exception as error:
        raise InputError(
            f"strategy {strategy.name!r} raises {describe_raised(error)} where it starts: correct "
            "it; --debug shows the traceback."
        ) from error
    missing = [name for name in _OF_RUNNERS if not callable(getattr(runner, name, None))]
    if missing:
        raise InputError(
            f"strategy {strategy.name!r} starts {type(runner).__name__}, which has no "
            f"{', '.join(missing)}: return an object with the methods of a Runner."
        )
    return runner
