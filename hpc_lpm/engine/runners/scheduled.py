"""Runs one of our schedules on merged stages."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.collectives import making_process_groups
from hpc_lpm.engine.evaluation import MicroBatchScores
from hpc_lpm.engine.pipeline.engine import ScheduledPipelineEngine
from hpc_lpm.engine.pipeline.equal_parameters import equal_on_replicas
from hpc_lpm.engine.pipeline.gradient_average import average_buffers
from hpc_lpm.engine.pipeline.module import PlannedModule
from hpc_lpm.engine.pipeline.options import LaggingOptions
from hpc_lpm.engine.pipeline.process_group import join_process_group
from hpc_lpm.engine.pipeline.rehearsal import PipelineRehearsal
from hpc_lpm.engine.pipeline.transport.channel import Circumstances
from hpc_lpm.engine.pipeline.transport.registry import open_channels
from hpc_lpm.engine.pipeline.weight_policy import weight_policy
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.engine.ties import TiedParameters
from hpc_lpm.engine.topology import find_rank_locations
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
from hpc_lpm.models.layer_calls import LayerCalls
from hpc_lpm.models.layered import Tie
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.insertions import with_communication
from hpc_lpm.schedules.instructions import Programme
from hpc_lpm.schedules.ordering import evaluation
from hpc_lpm.schedules.registry import FLUSHING_SCHEDULE, schedule_named

_TAIL_SCHEDULE = schedule_named(FLUSHING_SCHEDULE)


class PipelineRunner:
    """One merged stage of a pipeline that follows a schedule."""

    def __init__(self, context: RunContext, schedule: Schedule) -> None:
        settings, job = context.settings, context.job
        join_process_group(job, context.device)
        cuts = context.required_plan().cuts
        self._context = context
        self._schedule = schedule
        self._own = LaggingOptions.of(settings.own)
        self._topology = context.topology
        ties = context.model.ties
        self._tied_stages = _tied_stages(ties, cuts)
        with making_process_groups(job):
            layers = context.build_layers()
            self._module = PlannedModule(
                layers,
                cuts,
                context.model.loss,
                context.compute_format,
                LayerCalls(layers, settings.seed, context.device),
            )
            tied = TiedParameters(ties, layers, partial(_stage_of, cuts=cuts))
            policy = weight_policy(
                self._own.weights,
                list(self._module.parameters()),
                casts=settings.precision != "fp32",
            )
            with equal_on_replicas(self._module):
                self._engine = ScheduledPipelineEngine(
                    context, self._module, policy, tied, stages_meet=schedule.flushes
                )
        self._module.arrange()
        rehearsal = PipelineRehearsal(
            self._module, context, policy.reads_anew, varies=self._own.boundary_shapes == "sent"
        )
        circumstances = Circumstances(
            job,
            self._topology,
            self._tied_stages,
            context.device,
            own_devices=find_rank_locations(job, context.device).own_gpus,
            receive_timeout_seconds=settings.receive_timeout_seconds,
            progress_thread=bool(self._own.progress_thread),
            resources=context.resources,
        )
        channels = open_channels(self._own.transport, circumstances)
        self._engine.connect(rehearsal, channels)
        self._bytes_sent = 0

    def rehearse(
        self, passes: Sequence[RehearsedPass], metrics: Sequence[EvaluationMetric]
    ) -> None:
        """Find out what crosses the boundaries of the stages in passes of these kinds."""
        self._engine.rehearse(passes, metrics)

    def train(self, batch: MicroBatches, following: MicroBatches | None) -> None:
        """Train on this replica's share of a batch; drain if nothing follows."""
        settings, topology = self._context.settings, self._topology
        in_tail = self._own.flushes_in(batch.epoch, self._context.epochs)
        schedule = _TAIL_SCHEDULE if in_tail else self._schedule

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

        self._bytes_sent += self._engine.train_on(
            programme_of, self._share(batch), None if following is None else self._share(following)
        )

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
            group = self._module.mpu().get_data_parallel_group()
            average_buffers(self._module, group, topology.replicas)
        return self._engine.evaluate_on(
            list(with_communication(forwards, topology.stage, topology.stages)), share, metrics
        )

    def state(self) -> TrainedState:
        """Return the layers, optimizer and scheduler of this stage."""
        return self._engine.state()

    def bytes_sent(self) -> int:
        """Return the bytes sent to neighbouring stages and replicas while training."""
        return self._bytes_sent


def _stage_of(layer: int, cuts: Sequence[int]) -> int:
    return bisect_right(cuts, layer) - 1


def _tied_stages(ties: Sequence[Tie], cuts: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs of different stages that hold tied weights, owner first."""
    pairs = {(_stage_of(tie.owner_layer, cuts), _stage_of(tie.copy_layer, cuts)) for tie in ties}
    return sorted((owner, copy) for owner, copy in pairs if owner != copy)
