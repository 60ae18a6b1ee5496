"""The machine's limit: the speed of all devices if no rank had to wait for another."""

from typing import TYPE_CHECKING

from hpc_lpm.engine.strategies.base import Strategy

if TYPE_CHECKING:
    from hpc_lpm.engine.runners.runner import RunContext, Runner


class Limit(Strategy):
    """Independent sequential training on every device at once; their speeds are added."""

    name = "limit"
    description = (
        "the machine's limit: sequential training on every device at once, none waits for any"
    )
    independent = True

    def start(self, context: "RunContext") -> "Runner":
        """Return the runner that trains on this device alone."""
        from hpc_lpm.engine.runners.sequential import SequentialRunner

        return SequentialRunner(context)
