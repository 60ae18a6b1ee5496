"""The discount of the learning rate of a stage whose weights lag."""

from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.scheduled import LaggingOptions
from hpc_lpm.engine.topology import PipelineTopology
from hpc_lpm.options import OptimizerSettings
from hpc_lpm.schedules.registry import schedule_named


def stage_optimizer(settings: TrainSettings, topology: PipelineTopology) -> OptimizerSettings:
    """Return the optimizer of one stage, whose rate is divided by max(1, d_k / M) if asked for.

    d_k is the delay of the stage's weight versions in micro-batches, M the micro-batches of an
    optimizer step, so d_k / M is the mean lag in updates (METHOD section 2).
    """
    optimizer, own = settings.optimizer, LaggingOptions.of(settings.own)
    if not own.lr_discount:
        return optimizer
    delay = schedule_named(settings.strategy).version_delay(
        topology.stage,
        topology.stages,
        settings.micro_batches,
        own.lead,
        replicas=topology.replicas,
    )
    lag = max(1.0, delay / settings.micro_batches)
    return optimizer.model_copy(update={"lr": optimizer.lr / lag})
