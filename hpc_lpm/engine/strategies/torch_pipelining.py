"""The strategies that train with PyTorch's own pipeline engine, torch.distributed.pipelining."""

from typing import TYPE_CHECKING, Any

from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.outside_pipeline import OutsidePipeline
from hpc_lpm.errors import InputError

if TYPE_CHECKING:
    from hpc_lpm.engine.runners.runner import RunContext, Runner
    from hpc_lpm.engine.settings import TrainSettings


class TorchPipelining(OutsidePipeline):
    """A schedule of torch.distributed.pipelining, unmodified, one stage a rank.

    Attributes:
        schedule: the class of the schedule there.
        order: the schedule here whose plans suit it.
    """

    engine = "PyTorch's pipeline"
    schedule: str
    order: str

    def plan_options(self, settings: "TrainSettings") -> dict[str, Any]:
        """Return the options of a plan for this order."""
        return {**super().plan_options(settings), "schedule": self.order}

    def check(self, run: PlannedRun) -> None:
        """Refuse replicas, which PyTorch leaves to another engine around this one."""
        super().check(run)
        if run.replicas > 1:
            raise InputError(
                f"--strategy {self.name} was started on {run.ranks} ranks with a plan of "
                f"{run.stages} stages, but trains one replica of every stage: start as many ranks "
                "as there are stages, or use another strategy."
            )

    def start(self, context: "RunContext") -> "Runner":
        """Return the runner of this rank's stage."""
        from hpc_lpm.engine.runners.torch_pipelining import TorchPipelineRunner

        return TorchPipelineRunner(context, self.schedule)


class TorchGPipe(TorchPipelining):
    """All forwards of a step, then all its backwards, on PyTorch's engine."""

    name = "torch-gpipe"
    description = "PyTorch's own pipeline engine: all forwards, then all backwards"
    schedule = "ScheduleGPipe"
    order = "gpipe"


class Torch1F1B(TorchPipelining):
    """1F1B with a flush at every step, on PyTorch's engine."""

    name = "torch-1f1b"
    description = "PyTorch's own pipeline engine: 1F1B with a flush at every step"
    schedule = "Schedule1F1B"
    order = "1f1b"
    colour = "#c2484d"

    def check(self, run: PlannedRun) -> None:
        """Refuse fewer micro-batches than stages."""
        super().check(run)
        if run.settings.micro_batches < run.stages:
            raise InputError(
                f"--micro-batches is {run.settings.micro_batches} with a plan of {run.stages} "
                f"stages, but {self.engine} takes at least as many micro-batches as stages under "
                f"--strategy {self.name}: use more micro-batches, or torch-gpipe."
            )
