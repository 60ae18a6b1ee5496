"""The machine's limit: what all devices could do if no rank had to wait for another."""

from typing import TYPE_CHECKING

from hpc_lpm.engine.strategies.base import Strategy

if TYPE_CHECKING:
    from hpc_lpm.engine.runners.runner import RunContext, Runner


class Limit(Strategy):
    """Independent sequential trainings on all devices at once; their speeds are added."""

    name = "limit"
    description = (
        "the machine's limit: sequential training on every device at once, none waits for any"
    )
    independent = True

    def start(self, context: "RunContext") -> "Runner":
        """Return this device's own training."""
        from hpc_lpm.engine.runners.sequential import SequentialRunner

        return SequentialRunner(context)
