"""Runs one of our schedules on merged stages."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores
from hpc_lpm.engine.gradient_rules import GradientRules
from hpc_lpm.engine.pipeline.carried_stage import carried_stage
from hpc_lpm.engine.pipeline.executor import StageExecutor
from hpc_lpm.engine.pipeline.gradient_average import GradientAverage, average_buffers
from hpc_lpm.engine.pipeline.options import LaggingOptions
from hpc_lpm.engine.pipeline.prediction import prediction_of
from hpc_lpm.engine.pipeline.rate_discount import rate_divisor
from hpc_lpm.engine.pipeline.rehearsal import PipelineRehearsal
from hpc_lpm.engine.pipeline.stage_module import StageModule
from hpc_lpm.engine.pipeline.transport.channel import Circumstances, StageChannels
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
    """One merged stage of a pipeline that follows a schedule."""

    def __init__(self, context: RunContext, schedule: Schedule) -> None:
        settings = context.settings
        self._context = context
        self._schedule = schedule
        self._own = LaggingOptions.of(settings.own)
        self._flushed = self._own.flushed_steps(context.updates, context.steps_an_epoch)
        self._topology = context.topology
        self._tied_stages = _tied_stages(context.model.ties, context.cuts)
        self._stage = carried_stage(context, self._make_updates)
        module, parameters = self._stage.module, self._updated
        policy = weight_policy(
            self._own.weights, list(module.parameters()), casts=settings.precision != "fp32"
        )
        self._prediction = prediction_of(settings, module, self._tied, self._stage.updates)
        average = None
        if context.replicas > 1:
            average = GradientAverage(
                parameters,
                self._stage.replica_sum,
                context.replicas,
                timeout_seconds=settings.receive_timeout_seconds,
            )
        # Stages that update at different times decide for themselves.
        meeting = context.gather_from_stages if schedule.flushes else None
        self._executor = StageExecutor(
            context,
            module,
            policy,
            self._tied,
            prediction=self._prediction,
            average=average,
            rules=GradientRules(parameters, settings, context.recorder, meeting),
            stepping=self._stage.stepping,
        )
        self._rehearsal = PipelineRehearsal(
            module, context, policy.reads_anew, varies=self._own.boundary_shapes == "sent"
        )
        self._executor.connect(self._rehearsal, self._channels())
        self._bytes_sent = 0

    def _make_updates(self, module: StageModule) -> Updates:
        context, layers = self._context, module.local_layers()
        stage_of = partial(_stage_of, cuts=context.cuts)
        self._tied = TiedParameters(context.model.ties, layers, stage_of)
        self._updated = self._tied.without_copies(module.parameters())
        divisor = rate_divisor(context.settings, self._topology)
        return context.updating.build(self._updated, layers, rate_divisor=divisor)

    def _channels(self) -> StageChannels:
        context = self._context
        circumstances = Circumstances(
            context.job,
            self._topology,
            self._tied_stages,
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
                topology.stage,
                topology.stages,
                settings.micro_batches,
                micro_batches,
                self._own.lead,
                replay=self._own.weights == "replay",
                ties=self._tied_stages,
                replicas=topology.replicas,
            )

        next_share = None if following is None else self._share(following)
        with self._stage.stepping.around_training():
            self._bytes_sent += self._executor.train(programme_of, self._share(batch), next_share)

    def _share(self, batch: MicroBatches) -> MicroBatches:
        return batch.share(self._topology.replica, self._topology.replicas)

    def evaluate(
        self, batches: MicroBatches, metrics: Sequence[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Return the scores of this replica's share on the last stage, none on others."""
        topology = self._topology
        share = self._share(batches)
        forwards = evaluation(len(share))
        if topology.replicas > 1:
            average_buffers(self._stage.module, self._stage.replica_sum, topology.replicas)
        placement = self._schedule.placement(topology.stages)
        programme = list(with_communication(forwards, topology.stage, placement))
        return self._executor.evaluate(programme, share, metrics)

    def state(self) -> TrainedState:
        """Return the layers, optimizer and scheduler of this stage."""
        updates = self._stage.updates
        return TrainedState(
            self._stage.module.local_layers(),
            updates.optimizer,
            updates.scheduler,
            self._topology.replica,
            updates.groups,
            self._prediction,
        )

    def bytes_sent(self) -> int:
        """Return the bytes sent to neighbouring stages and replicas while training."""
        return self._bytes_sent


def _stage_of(layer: int, cuts: Sequence[int]) -> int:
    return bisect_right(cuts, layer) - 1


def _tied_stages(ties: Sequence[Tie], cuts: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs of different stages that hold tied weights, owner first."""
    pairs = {(_stage_of(tie.owner_layer, cuts), _stage_of(tie.copy_layer, cuts)) for tie in ties}
    return sorted((owner, copy) for owner, copy in pairs if owner != copy)
