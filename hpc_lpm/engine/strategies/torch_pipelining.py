"""The strategies that train with PyTorch's own pipeline engine, torch.distributed.pipelining."""

from typing import TYPE_CHECKING, Any

from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.outside_pipeline import OutsidePipeline
from hpc_lpm.errors import InputError
from hpc_lpm.schedules.placement import Placement
from hpc_lpm.schedules.registry import schedule_named

if TYPE_CHECKING:
    from hpc_lpm.engine.runners.runner import RunContext, Runner
    from hpc_lpm.engine.settings import TrainSettings


class TorchPipelining(OutsidePipeline):
    """A schedule of torch.distributed.pipelining, unmodified.

    Attributes:
        schedule: the class of the schedule there.
        order: the schedule here whose plans suit it, and which places stages alike.
    """

    engine = "PyTorch's pipeline"
    schedule: str
    order: str

    def plan_options(self, settings: "TrainSettings") -> dict[str, Any]:
        """Return the options of a plan for this order."""
        return {**super().plan_options(settings), "schedule": self.order}

    def placement(self, settings: "TrainSettings", stages: int) -> Placement:
        """Return which device holds which stages: as our own schedule of this order places them."""
        return schedule_named(self.order).placement(stages)

    def stages_on(self, settings: "TrainSettings", devices: int) -> int:
        """Return how many stages a plan has."""
        return devices * schedule_named(self.order).chunks

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

        return TorchPipelineRunner(context, self.schedule, splits_backward=self.lone_crossing)


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


class TorchInterleaved(TorchPipelining):
    """1F1B with two chunks of the model on each device, on PyTorch's engine."""

    name = "torch-interleaved"
    description = "PyTorch's own pipeline engine: 1F1B with two chunks on each device"
    schedule = "ScheduleInterleaved1F1B"
    order = "interleaved-1f1b"

    def check(self, run: PlannedRun) -> None:
        """Refuse micro-batches that PyTorch cannot share out among its rounds."""
        super().check(run)
        micro_batches = run.settings.micro_batches
        rounds = max(1, micro_batches // run.stages)
        if micro_batches % rounds:
            raise InputError(
                f"--micro-batches is {micro_batches} with a plan for {run.stages} devices, but "
                f"{self.engine} takes a multiple of its {rounds} rounds under --strategy "
                f"{self.name}: use a multiple of {run.stages}, or interleaved-1f1b."
            )


class TorchZeroBubble(TorchPipelining):
    """ZB-V, whose gradients of weights fill what would be idle, on PyTorch's engine."""

    name = "torch-zb"
    description = "PyTorch's own pipeline engine: ZB-V, gradients of weights in idle time"
    schedule = "ScheduleZBVZeroBubble"
    order = "zb-v"
    lone_crossing = True  # To run the halves of backward passes apart PyTorch must see its history.
