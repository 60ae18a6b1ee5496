"""What a device holds while it trains: the one formula, for every schedule.

(2 + optimizer copies + stashed versions + predicted copies) x parameters + micro-batches in flight
x activations: the weights, their gradients, the optimizer's state, the older weights that policies
`stash` and `double-buffer` keep, where weights are predicted what the rule keeps at every stage
and, where they lag, the prediction itself, and what the passes in flight keep for their backwards.
Where predicted weights are stashed, each micro-batch in flight keeps its own in place of older
versions. Optimizer `muon` has a copy less of the parameters that are matrices: its second copy of
the others is counted beside the formula.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_lpm.errors import InputError
from hpc_lpm.options import DOUBLE_BUFFER
from hpc_lpm.planning.options import (
    MATRIX_COPIES,
    OPTIMIZER_COPIES,
    OTHER_OPTIMIZER,
    Optimizer,
    PlanOptions,
)
from hpc_lpm.prediction_rules import UPDATES_KEPT
from hpc_lpm.profile_file import LayerProfile, Profile
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
        """Return the factors of one stage of a pipeline under `schedule`.

        Raises:
            InputError: if more versions of the weights are in use than the policy keeps.
        """
        place = (stage, stages, options.micro_batches, options.lead)
        stashed = _older_versions(schedule, place, options)
        predicted = 0
        rule = options.prediction_rule
        if rule is not None and not schedule.flushes:
            # Also where nothing lags: checkpoints have them, for stages that are cut otherwise.
            predicted = UPDATES_KEPT[rule]
            lags = schedule.lagged(*place, replicas=options.replicas) > 0
            if lags and options.weights == "stash":
                # Each micro-batch in flight keeps the weights that were predicted for it.
                stashed = schedule.in_flight(*place)
            elif lags:
                predicted += 1
        return cls(
            parameters=2 + MATRIX_COPIES[options.optimizer] + stashed + predicted,
            activations=schedule.in_flight(*place),
        )

    @classmethod
    def of_one_device(cls, optimizer: Optimizer) -> "MemoryFactors":
        """Return the factors of a device that trains alone, one micro-batch after the other."""
        return cls(parameters=2 + MATRIX_COPIES[optimizer], activations=1)

    def bytes_of(
        self, parameter_bytes: int, activation_bytes: int, further_state_bytes: int = 0
    ) -> int:
        """Return the bytes for layers with these parameters and activations of a micro-batch.

        `further_state_bytes` are those of `further_state_bytes`.
        """
        factored = self.parameters * parameter_bytes + self.activations * activation_bytes
        return factored + further_state_bytes


def is_buffer_enough(schedule: Schedule, stages: int, options: PlanOptions) -> bool:
    """Tell if policy `double-buffer` keeps all versions of the weights that are in use.

    Of all stages the first uses most; other policies keep as many as they need.
    """
    place = (0, stages, options.micro_batches, options.lead)
    used = schedule.older_versions(*place, replicas=options.replicas)
    return options.weights != DOUBLE_BUFFER or used <= 1


def _older_versions(
    schedule: Schedule, place: tuple[int, int, int, int], options: PlanOptions
) -> int:
    """Return how many versions of the weights before the current one the policy keeps."""
    used = schedule.older_versions(*place, replicas=options.replicas)
    if options.weights == "stash":
        return used
    if options.weights != DOUBLE_BUFFER:
        return 0
    if used > 1:
        raise InputError(
            f"--weights double-buffer keeps one version before the current one, but with "
            f"{options.micro_batches} micro-batches a step and lead {options.lead} a stage uses "
            f"{used} of them: use more micro-batches, or --weights stash."
        )
    return 1


def further_state_bytes(
    parameter_bytes: int, matrix_parameter_bytes: int | None, optimizer: Optimizer
) -> int:
    """Return the optimizer's state beyond the copies that it has of matrices.

    Where it is not known how many bytes are matrices none are taken to be.
    """
    further = OPTIMIZER_COPIES[optimizer] - MATRIX_COPIES[optimizer]
    return further * (parameter_bytes - (matrix_parameter_bytes or 0))


def matrix_bytes(layers: Sequence[LayerProfile]) -> int | None:
    """Return the bytes of the layers' parameters that are matrices, None if one does not tell."""
    known = [
        layer.matrix_parameter_bytes for layer in layers if layer.matrix_parameter_bytes is not None
    ]
    return sum(known) if len(known) == len(layers) else None


def memory_assumptions(profile: Profile, optimizer: Optimizer) -> list[str]:
    """Return the sentences that say what the bytes of a plan assume."""
    if OPTIMIZER_COPIES[optimizer] == MATRIX_COPIES[optimizer]:
        return []
    if matrix_bytes(profile.layers) is not None:
        return []
    return [
        f"{optimizer} keeps as much for every parameter as for those that are no matrices: the "
        "profile does not tell them apart, one that is made anew does"
    ]


def whole_model_memory_bytes(profile: Profile, optimizer: Optimizer = OTHER_OPTIMIZER) -> int:
    """Return the bytes that the whole model takes on one device, one micro-batch at a time."""
    parameters = sum(layer.parameter_bytes for layer in profile.layers)
    return MemoryFactors.of_one_device(optimizer).bytes_of(
        parameters,
        sum(layer.activation_bytes for layer in profile.layers),
        further_state_bytes(parameters, matrix_bytes(profile.layers), optimizer),
    )
