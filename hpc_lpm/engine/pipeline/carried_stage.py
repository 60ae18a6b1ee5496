"""A stage and what carries it: what takes the optimizer's steps and sums over replicas.

Where ranks are processes, DeepSpeed carries a stage. Where one process plays all ranks, nothing is
needed but the layers and the optimizer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from hpc_lpm.engine.collectives import making_process_groups
from hpc_lpm.engine.one_process.job import PlayedJob
from hpc_lpm.engine.pipeline.replica_sum import PlayedSum, ReplicaSum, SumOverGroup
from hpc_lpm.engine.pipeline.stage_module import StageModule
from hpc_lpm.engine.pipeline.stepping import PlainStepping, Stepping
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.updating import Updates
from hpc_lpm.models.layer_calls import LayerCalls

MakeUpdates = Callable[[StageModule], Updates]
"""Makes what updates the weights of a stage's module (collective)."""


@dataclass(frozen=True)
class CarriedStage:
    """The module of a stage, what updates its weights, takes its steps and sums over replicas."""

    module: StageModule
    updates: Updates
    stepping: Stepping
    replica_sum: ReplicaSum


def carried_stage(context: RunContext, make_updates: MakeUpdates) -> CarriedStage:
    """Build this rank's layers and what carries them (collective).

    Raises:
        InputError: on every rank alike, if layers, optimizer or groups of ranks cannot be made.
        TrainingError: if a rank does not come in time.
    """
    if isinstance(context.job, PlayedJob):
        return _played(context, context.job, make_updates)
    return _carried_by_deepspeed(context, make_updates)


def _calls(context: RunContext, layers: Mapping[int, nn.Module]) -> LayerCalls:
    return LayerCalls(layers, context.settings.seed, context.device)


def _played(context: RunContext, job: PlayedJob, make_updates: MakeUpdates) -> CarriedStage:
    layers = context.build_layers()
    module = StageModule(layers, context.compute_format, _calls(context, layers))
    updates = make_updates(module)
    module.arrange()
    return CarriedStage(
        module, updates, PlainStepping(module, updates), PlayedSum(job, context.topology)
    )


def _carried_by_deepspeed(context: RunContext, make_updates: MakeUpdates) -> CarriedStage:
    # Importing DeepSpeed takes seconds, and it knows nothing of ranks that one process plays.
    from hpc_lpm.engine.pipeline.process_group import start_deepspeed

    start_deepspeed(context.job, context.device)
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
    return CarriedStage(module, updates, engine, summing)
