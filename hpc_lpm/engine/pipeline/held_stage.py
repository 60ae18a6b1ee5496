"""A stage that a rank holds: its place in the pipeline, its layers, and what runs them."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from hpc_lpm.engine.pipeline.stage_module import StageModule
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.topology import StagePlace
from hpc_lpm.models.layer_calls import LayerCalls


@dataclass(frozen=True)
class HeldStage:
    """A stage that this rank holds, one of several where a schedule has chunks.

    Attributes:
        place: in the pipeline.
        layers: by their index in the model, in order.
        calls: runs them.
    """

    place: StagePlace
    layers: Mapping[int, nn.Module]
    calls: LayerCalls


def held_stages(context: RunContext, module: StageModule) -> list[HeldStage]:
    """Return the stages that this rank holds, in order, whose layers all are in `module`."""
    places = context.topology.places
    layers = module.local_layers()
    if len(places) == 1:
        return [HeldStage(places[0], layers, module.calls)]
    stages = []
    for place in places:
        own = {index: layers[index] for index in context.layers_of(place.stage)}
        stages.append(HeldStage(place, own, LayerCalls(own, context.settings.seed, context.device)))
    return stages
