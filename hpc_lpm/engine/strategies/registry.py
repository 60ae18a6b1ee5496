"""The strategies by name. A new one is a class in a file of its own and a line in `STRATEGIES`.

Every schedule is a strategy too, under its own name, on our engine. Users add strategies without
touching the toolkit: `module:Class`, or an entry point of the group `hpc_lpm.strategies`.
"""

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
from hpc_lpm.extensions import Registry, expect_type
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.registry import SCHEDULES


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
    strategy.name = name
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


DEFAULT_STRATEGY = Sequential.name
"""The strategy of a run that names none."""


def strategy_named(name: str) -> Strategy:
    """Return a strategy by its name.

    Raises:
        InputError: if no strategy has that name.
    """
    return STRATEGIES.named(name)
