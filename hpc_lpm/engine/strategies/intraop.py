"""One process with a thread for every device: what a user does who has no pipeline."""

from typing import TYPE_CHECKING

from hpc_lpm.engine.strategies.base import Strategy

if TYPE_CHECKING:
    from hpc_lpm.engine.runners.runner import RunContext, Runner
    from hpc_lpm.engine.settings import TrainSettings


class IntraOp(Strategy):
    """Sequential training whose operations share their work among threads."""

    name = "intraop"
    description = "one process whose operations compute with as many threads as there are devices"
    parallel = False
    colour = "#8a6d3b"

    def on_devices(self, settings: "TrainSettings", devices: int) -> "TrainSettings":
        """Return the settings with the threads of all devices."""
        return settings.model_copy(update={"threads": settings.threads * devices})

    def start(self, context: "RunContext") -> "Runner":
        """Return the runner that trains the whole model."""
        from hpc_lpm.engine.runners.sequential import SequentialRunner

        return SequentialRunner(context)
