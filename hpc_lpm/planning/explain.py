"""What bounds a plan: the bottleneck, the speedup over one device and how far it could go."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from hpc_lpm.planning.cost import CostModel


@dataclass(frozen=True)
class Explanation:
    """Why a plan is as fast as it is.

    `speedup` is over the fastest of the devices alone, without a pipeline, and counts all replicas.
    No plan of as many stages exceeds `speedup_bound`, set by the sum of the devices or by the
    coarsest layer. `coarsest_layer_bounds` tells that it is the layer.
    """

    bottleneck: str
    speedup: float
    speedup_bound: float
    coarsest_layer: str
    coarsest_layer_bounds: bool


def explain(model: CostModel, cuts: Sequence[int]) -> Explanation:
    """Explain the plan with these K+1 cut positions."""
    layers = model.profile.layers
    speeds = [Fraction(speed) for speed in model.options.speeds or (1.0,) * model.stages]
    seconds = [
        Fraction(layer.forward_seconds) + Fraction(layer.backward_seconds) for layer in layers
    ]
    coarsest = max(range(len(layers)), key=lambda index: seconds[index])
    alone = sum(seconds, Fraction(0)) / max(speeds)
    by_devices = sum(seconds, Fraction(0)) / sum(speeds)
    by_layer = seconds[coarsest] / max(speeds)
    replicas = model.options.replicas
    return Explanation(
        bottleneck=_bottleneck(model, cuts),
        speedup=replicas * _ratio(alone, model.period(cuts)),
        speedup_bound=replicas * _ratio(alone, max(by_devices, by_layer)),
        coarsest_layer=layers[coarsest].name,
        coarsest_layer_bounds=by_layer > by_devices,
    )


def _bottleneck(model: CostModel, cuts: Sequence[int]) -> str:
    period = model.period(cuts)
    for stage, (start, stop) in enumerate(pairwise(cuts)):
        if model.compute_seconds(stage, start, stop) == period:
            return f"the compute of stage {stage}"
        if model.overlap and model.transfer_seconds(stop) == period:
            return f"the transfer between stages {stage} and {stage + 1}"
        if not model.overlap and model.stage_period(stage, start, stop) == period:
            return f"compute and transfers of stage {stage}"
    raise ValueError("the cuts are not those of a plan")


def _ratio(numerator: Fraction, denominator: Fraction) -> float:
    return float(numerator / denominator) if denominator else 1.0
