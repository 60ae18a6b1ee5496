"""The strategy that trains with DeepSpeed's own pipeline engine, unmodified."""

from typing import TYPE_CHECKING, Any

from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.outside_pipeline import OutsidePipeline
from hpc_lpm.errors import InputError

if TYPE_CHECKING:
    from hpc_lpm.engine.runners.runner import RunContext, Runner
    from hpc_lpm.engine.settings import TrainSettings


class DeepSpeed1F1B(OutsidePipeline):
    """DeepSpeed's 1F1B, which flushes at every step and blocks during its transfers."""

    name = "deepspeed-1f1b"
    description = "DeepSpeed's own pipeline engine: 1F1B with a flush at every step"
    engine = "DeepSpeed"
    overlaps = False
    rival = True
    clip_scopes = ("global",)
    colour = "#d9822b"

    def plan_options(self, settings: "TrainSettings") -> dict[str, Any]:
        """Return the options of a plan for 1F1B without overlap."""
        return {**super().plan_options(settings), "schedule": "1f1b"}

    def check(self, run: PlannedRun) -> None:
        """Refuse clipping by stage, incomplete last batches, and tied weights."""
        super().check(run)
        settings = run.settings
        if settings.clip_norm is not None and settings.clip_scope == "stage":
            raise InputError(
                f"--clip-scope stage was found with --strategy {self.name}, whose engine clips by "
                "the norm over all stages: use --clip-scope global."
            )

    def start(self, context: "RunContext") -> "Runner":
        """Return the runner of this rank's stage."""
        from hpc_lpm.engine.runners.deepspeed import StockPipelineRunner

        return StockPipelineRunner(context)
