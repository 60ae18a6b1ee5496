"""The stages of a rank and what carries them: takes the optimizer's steps, sums over replicas.

Where ranks are processes, DeepSpeed carries a stage. It knows nothing of ranks that hold several
stages, nor of ranks that one process plays: there nothing is needed but layers and optimizer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed
from torch import nn
from torch.distributed import ProcessGroup

from hpc_lpm.engine.collectives import making_process_groups
from hpc_lpm.engine.one_process.job import PlayedJob
from hpc_lpm.engine.pipeline.held_stage import HeldStage, held_stages
from hpc_lpm.engine.pipeline.process_group import join_process_group, start_deepspeed
from hpc_lpm.engine.pipeline.replica_sum import PlayedSum, ReplicaSum, SumOverGroup
from hpc_lpm.engine.pipeline.stage_module import StageModule
from hpc_lpm.engine.pipeline.stepping import PlainStepping, Stepping
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.updating import Updates
from hpc_lpm.models.layer_calls import LayerCalls

MakeUpdates = Callable[[StageModule], Updates]
"""Makes what updates the weights of a module (collective)."""


@dataclass(frozen=True)
class CarriedStages:
    """The stages of a rank, what updates their weights, takes steps and sums over replicas.

    `module` has the layers of all of them; `replica_sum` is None without replicas.
    """

    module: StageModule
    stages: list[HeldStage]
    updates: Updates
    stepping: Stepping
    replica_sum: ReplicaSum | None


def carried_stages(context: RunContext, make_updates: MakeUpdates) -> CarriedStages:
    """Build this rank's layers and what carries them (collective).

    Raises:
        InputError: on every rank alike, if layers, optimizer or groups of ranks cannot be made.
        TrainingError: if a rank does not come in time.
    """
    if isinstance(context.job, PlayedJob):
        return _plain(context, make_updates, PlayedSum(context.job, context.topology))
    if context.placement.chunks == 1:
        return _carried_by_deepspeed(context, make_updates)
    join_process_group(context.job, context.device)
    replica_sum = None
    if context.replicas > 1:
        replica_sum = SumOverGroup(_group_of_replicas(context))
    return _plain(context, make_updates, replica_sum)


def _calls(context: RunContext, layers: Mapping[int, nn.Module]) -> LayerCalls:
    return LayerCalls(layers, context.settings.seed, context.device)


def _plain(
    context: RunContext, make_updates: MakeUpdates, replica_sum: ReplicaSum | None
) -> CarriedStages:
    layers = context.build_layers()
    module = StageModule(layers, context.compute_format, _calls(context, layers))
    updates = make_updates(module)
    module.arrange()
    stages = held_stages(context, module)
    return CarriedStages(module, stages, updates, PlainStepping(module, updates), replica_sum)


def _group_of_replicas(context: RunContext) -> ProcessGroup:
    """Make the group of each device's replicas and return this rank's (collective)."""
    topology = context.topology
    own: ProcessGroup | None = None
    with making_process_groups(context.job):
        for device in range(topology.devices):
            first = device * topology.replicas
            group = torch.distributed.new_group(list(range(first, first + topology.replicas)))
            own = group if device == topology.device else own
    assert own is not None
    return own


def _carried_by_deepspeed(context: RunContext, make_updates: MakeUpdates) -> CarriedStages:
    start_deepspeed(context.job, context.device)
    # Importing DeepSpeed takes seconds.
    from hpc_lpm.engine.pipeline.engine import ScheduledPipelineEngine
    from hpc_lpm.engine.pipeline.equal_parameters import equal_on_replicas
    from hpc_lpm.engine.pipeline.module import PlannedModule

    with making_process_groups(context.job):
        layers = context.build_layers()
        module = PlannedModule(
            layers,
            context.cuts,
            context.model.loss,
            context.compute_format,
            _calls(context, layers),
        )
        with equal_on_replicas(module):
            updates = make_updates(module)
            engine = ScheduledPipelineEngine(context, module, updates)
    module.arrange()
    summing = SumOverGroup(engine.grid.get_data_parallel_group())
    return CarriedStages(module, held_stages(context, module), updates, engine, summing)
