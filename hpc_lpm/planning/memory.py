"""What a device holds while it trains: the one formula, for every schedule.

(2 + optimizer copies + stashed versions) x parameters + micro-batches in flight x activations: the
weights, their gradients, the optimizer's state, the older weights that policy `stash` keeps, and
what the passes in flight keep for their backwards.
"""

from dataclasses import dataclass

from hpc_lpm.planning.options import OPTIMIZER_COPIES, OTHER_OPTIMIZER, Optimizer, PlanOptions
from hpc_lpm.profile_file import Profile
from hpc_lpm.schedules.base import Schedule


@dataclass(frozen=True)
class MemoryFactors:
    """How many times a device holds its parameters, and the activations of a micro-batch."""

    parameters: int
    activations: int

    @classmethod
    def of_stage(
        cls, schedule: Schedule, stage: int, stages: int, options: PlanOptions
    ) -> "MemoryFactors":
        """Return the factors of one stage of a pipeline under `schedule`."""
        place = (stage, stages, options.micro_batches, options.lead)
        stashed = 0
        if options.weights == "stash":
            stashed = schedule.older_versions(*place, replicas=options.replicas)
        return cls(
            parameters=2 + OPTIMIZER_COPIES[options.optimizer] + stashed,
            activations=schedule.in_flight(*place),
        )

    @classmethod
    def of_one_device(cls, optimizer: Optimizer) -> "MemoryFactors":
        """Return the factors of a device that trains alone, one micro-batch after the other."""
        return cls(parameters=2 + OPTIMIZER_COPIES[optimizer], activations=1)

    def bytes_of(self, parameter_bytes: int, activation_bytes: int) -> int:
        """Return the bytes for layers with these parameters and activations of a micro-batch."""
        return self.parameters * parameter_bytes + self.activations * activation_bytes


def whole_model_memory_bytes(profile: Profile, optimizer: Optimizer = OTHER_OPTIMIZER) -> int:
    """Return the bytes that the whole model takes on one device, one micro-batch at a time."""
    return MemoryFactors.of_one_device(optimizer).bytes_of(
        sum(layer.parameter_bytes for layer in profile.layers),
        sum(layer.activation_bytes for layer in profile.layers),
    )
