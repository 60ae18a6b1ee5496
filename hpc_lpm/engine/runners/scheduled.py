"""Runs one of our schedules on merged stages."""

from bisect import bisect_right
from collections.abc import Callable, Sequence

from torch import nn

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores
from hpc_lpm.engine.gradient_rules import GradientRules
from hpc_lpm.engine.pipeline.carried_stages import carried_stages
from hpc_lpm.engine.pipeline.executor import ProgrammeExecutor
from hpc_lpm.engine.pipeline.gradient_average import GradientAverage, average_buffers
from hpc_lpm.engine.pipeline.options import LaggingOptions, PassRules
from hpc_lpm.engine.pipeline.prediction import prediction_of
from hpc_lpm.engine.pipeline.rate_discount import rate_divisor
from hpc_lpm.engine.pipeline.rehearsal import PipelineRehearsal
from hpc_lpm.engine.pipeline.stage_module import StageModule
from hpc_lpm.engine.pipeline.transport.channel import Circumstances, RankChannels
from hpc_lpm.engine.pipeline.transport.registry import open_channels
from hpc_lpm.engine.pipeline.weight_policy import weight_policy
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.engine.ties import TiedParameters
from hpc_lpm.engine.topology import find_rank_locations
from hpc_lpm.engine.updating import Updates
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
from hpc_lpm.models.layered import Tie
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.insertions import with_communication
from hpc_lpm.schedules.instructions import Programme
from hpc_lpm.schedules.ordering import evaluation
from hpc_lpm.schedules.registry import FLUSHING_SCHEDULE, schedule_named

_FLUSHING = schedule_named(FLUSHING_SCHEDULE)


class PipelineRunner:
    """The merged stages of one rank of a pipeline that follows a schedule.

    Args:
        context: of the run.
        schedule: the order of passes.
        rules: what the strategy adds to it.
    """

    def __init__(self, context: RunContext, schedule: Schedule, rules: PassRules) -> None:
        settings = context.settings
        self._context = context
        self._schedule, self._pass_rules = schedule, rules
        self._own = LaggingOptions.of(settings.own)
        self._flushed = self._own.flushed_steps(context.updates, context.steps_an_epoch)
        self._topology = context.topology
        self._tied_devices = _tied_devices(context.model.ties, self._device_of)
        self._carried = carried_stages(context, self._make_updates)
        module, summing = self._carried.module, self._carried.replica_sum
        policy = weight_policy(
            rules.weights, list(module.parameters()), casts=settings.precision != "fp32"
        )
        self._prediction = prediction_of(settings, rules, module, self._tied, self._carried.updates)
        average = None
        if context.replicas > 1 and summing is not None:
            average = GradientAverage(
                self._updated,
                summing,
                context.replicas,
                timeout_seconds=settings.receive_timeout_seconds,
            )
        self._executor = ProgrammeExecutor(
            context,
            self._carried,
            policy,
            self._tied,
            prediction=self._prediction,
            average=average,
            rules=self._gradient_rules(),
            gradient_shrink=rules.gradient_shrink,
        )
        self._rehearsal = PipelineRehearsal(
            module,
            self._carried.stages,
            context,
            policy.reads_anew,
            varies=self._own.boundary_shapes == "sent",
        )
        self._executor.connect(self._rehearsal, self._channels())
        self._bytes_sent = 0

    def _device_of(self, layer: int) -> int:
        """Return the device that holds a layer."""
        return self._topology.placement.device(bisect_right(self._context.cuts, layer) - 1)

    def _make_updates(self, module: StageModule) -> Updates:
        context, layers = self._context, module.local_layers()
        self._tied = TiedParameters(context.model.ties, layers, self._device_of)
        self._updated = self._tied.without_copies(module.parameters())
        divisor = rate_divisor(context.settings, self._topology)
        return context.updating.build(self._updated, layers, rate_divisor=divisor)

    def _gradient_rules(self) -> GradientRules:
        context = self._context
        of_stages = [
            self._tied.without_copies(nn.ModuleList(stage.layers.values()).parameters())
            for stage in self._carried.stages
        ]
        # Stages that update at different times decide for themselves.
        meeting = context.gather_from_stages if self._schedule.flushes else None
        return GradientRules(of_stages, context.settings, context.recorder, meeting)

    def _channels(self) -> RankChannels:
        context = self._context
        circumstances = Circumstances(
            context.job,
            self._topology,
            self._tied_devices,
            context.device,
            own_devices=find_rank_locations(context.job, context.device).own_gpus,
            receive_timeout_seconds=context.settings.receive_timeout_seconds,
            progress_thread=bool(self._own.progress_thread),
            resources=context.resources,
        )
        return open_channels(self._own.transport, circumstances)

    def rehearse(
        self, passes: Sequence[RehearsedPass], metrics: Sequence[EvaluationMetric]
    ) -> None:
        """Find out what crosses the boundaries of the stages in passes of these kinds."""
        self._rehearsal.rehearse(passes, metrics)
        self._executor.heed(self._rehearsal)

    def train(self, batch: MicroBatches, following: MicroBatches | None) -> None:
        """Train on this replica's share of a batch; drain if nothing follows."""
        settings, topology = self._context.settings, self._topology
        schedule = _FLUSHING if batch.first_step in self._flushed else self._schedule

        def programme_of(micro_batches: int) -> Programme:
            return schedule.programme(
                topology.device,
                topology.stages,
                settings.micro_batches,
                micro_batches,
                self._pass_rules.lead,
                replay=self._pass_rules.weights == "replay",
                ties=self._tied_devices,
                replicas=topology.replicas,
            )

        next_share = None if following is None else self._share(following)
        with self._carried.stepping.around_training():
            self._bytes_sent += self._executor.train(programme_of, self._share(batch), next_share)

    def _share(self, batch: MicroBatches) -> MicroBatches:
        return batch.share(self._topology.replica, self._topology.replicas)

    def evaluate(
        self, batches: MicroBatches, metrics: Sequence[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Return the scores of this replica's share where the model ends, none elsewhere."""
        topology, summing = self._topology, self._carried.replica_sum
        share = self._share(batches)
        forwards = evaluation(len(share), topology.device, topology.placement)
        if topology.replicas > 1 and summing is not None:
            average_buffers(self._carried.module, summing, topology.replicas)
        programme = list(with_communication(forwards, topology.device, topology.placement))
        return self._executor.evaluate(programme, share, metrics)

    def state(self) -> TrainedState:
        """Return the layers, optimizer and scheduler of this rank."""
        updates = self._carried.updates
        return TrainedState(
            self._carried.module.local_layers(),
            updates.optimizer,
            updates.scheduler,
            self._topology.replica,
            updates.groups,
            self._prediction,
        )

    def bytes_sent(self) -> int:
        """Return the bytes sent to neighbouring stages and replicas while training."""
        return self._bytes_sent


def _tied_devices(ties: Sequence[Tie], device_of: Callable[[int], int]) -> list[tuple[int, int]]:
    """Return the pairs of different devices that hold tied weights, owner first."""
    pairs = {(device_of(tie.owner_layer), device_of(tie.copy_layer)) for tie in ties}
    return sorted((owner, copy) for owner, copy in pairs if owner != copy)
