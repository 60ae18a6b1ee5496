"""The strategy of training on one device, the baseline of every comparison."""

from typing import TYPE_CHECKING

from hpc_lpm.engine.strategies.base import Strategy

if TYPE_CHECKING:
    from hpc_lpm.engine.runners.runner import RunContext, Runner


class Sequential(Strategy):
    """Forward, backward and update one after the other on one device."""

    name = "sequential"
    description = "one device, forward, backward and update one after the other"
    parallel = False
    baseline = True
    colour = "#6b7580"

    def start(self, context: "RunContext") -> "Runner":
        """Return the runner that trains the whole model."""
        from hpc_lpm.engine.runners.sequential import SequentialRunner

        return SequentialRunner(context)
