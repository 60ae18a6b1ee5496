"""A lower learning rate for stages whose weights lag."""

from hpc_lpm.engine.pipeline.options import LaggingOptions
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.topology import PipelineTopology
from hpc_lpm.schedules.registry import schedule_named


def rate_divisor(settings: TrainSettings, topology: PipelineTopology) -> float:
    """Return what the learning rate of one stage is divided by, for its lag, if that was asked for.

    That is max(1, d_k / M): d_k is the delay of the stage's weight versions in micro-batches and M
    the micro-batches of an optimizer step, so that d_k / M is the mean lag in updates.
    """
    own = LaggingOptions.of(settings.own)
    if not own.lr_discount:
        return 1.0
    delay = schedule_named(settings.strategy).version_delay(
        topology.device,
        topology.devices,
        settings.micro_batches,
        own.lead,
        replicas=topology.replicas,
    )
    return max(1.0, delay / settings.micro_batches)
