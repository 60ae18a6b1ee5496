"""The strategy that trains with DeepSpeed's own pipeline engine, unmodified."""

from typing import TYPE_CHECKING, Any

from hpc_lpm.engine.strategies.base import PlannedRun, Strategy
from hpc_lpm.errors import InputError

if TYPE_CHECKING:
    from hpc_lpm.engine.runners.runner import RunContext, Runner
    from hpc_lpm.engine.settings import TrainSettings


class DeepSpeed1F1B(Strategy):
    """DeepSpeed's 1F1B, which flushes at every step and blocks during its transfers."""

    name = "deepspeed-1f1b"
    description = "DeepSpeed's own pipeline engine: 1F1B with a flush at every step"
    needs_plan = True
    pipelined = True
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
        left = (run.samples or 0) % settings.batch_size
        if settings.last_batch == "keep" and left:
            raise InputError(
                f"--last-batch keep was given, but the last batch of an epoch has {left} of "
                f"{settings.batch_size} samples, and {self.name} only takes whole batches: "
                "use --last-batch drop or another strategy."
            )
        if run.model and run.model.ties:
            tie = run.model.ties[0]
            owner, copy = (
                f"{index} {run.model.layers[index].name}"
                for index in (tie.owner_layer, tie.copy_layer)
            )
            raise InputError(
                f"--strategy {self.name} was given with model {run.model.name}, which ties weights "
                f"of layers {owner} and {copy} ({tie.owner_parameter}: tied, or one module used "
                "twice), but DeepSpeed would train the two apart: give each layer weights of its "
                "own or use another strategy."
            )

    def start(self, context: "RunContext") -> "Runner":
        """Return the runner of this rank's stage."""
        from hpc_lpm.engine.runners.deepspeed import StockPipelineRunner

        return StockPipelineRunner(context)
