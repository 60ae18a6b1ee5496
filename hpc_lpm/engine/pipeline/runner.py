"""Strategies that run our schedules on merged stages."""

from torch import nn

from hpc_lpm.engine.batches import MicroBatches, evaluation_micro_batches
from hpc_lpm.engine.job import MpiJob
from hpc_lpm.engine.pipeline.boundary import probe_boundaries
from hpc_lpm.engine.pipeline.engine import ScheduledPipelineEngine
from hpc_lpm.engine.pipeline.module import PlannedModule
from hpc_lpm.engine.pipeline.process_group import join_process_group
from hpc_lpm.engine.runner import RunContext
from hpc_lpm.schedules.communication import with_communication
from hpc_lpm.schedules.evaluation import evaluation
from hpc_lpm.schedules.registry import schedule_named


class PipelineRunner:
    """One merged stage of a pipeline under one of the named schedules."""

    def __init__(self, context: RunContext, schedule_name: str) -> None:
        settings, job = context.settings, context.job
        assert isinstance(job, MpiJob)
        join_process_group(job, context.device)
        cuts = context.required_plan().cuts
        self._context = context
        self._schedule = schedule_named(schedule_name)
        self._stages = len(cuts) - 1
        self._module = PlannedModule(context.model, cuts, settings.seed)
        self._engine = ScheduledPipelineEngine(context, self._module)
        test = evaluation_micro_batches(context.dataset.test, settings.micro_batch_size)
        sizes = {settings.micro_batch_size, *(test.size(n) for n in range(len(test)))}
        boundaries = probe_boundaries(
            self._module,
            context.model,
            sizes,
            context.dataset.shape,
            job,
            job.rank,
            self._stages,
            context.device,
        )
        self._engine.connect(job, boundaries)
        self._bytes_sent = 0

    def train(self, batches: MicroBatches) -> None:
        """Train on these micro-batches without a stop, then drain."""
        settings = self._context.settings
        programme = self._schedule.programme(
            self._context.job.rank,
            self._stages,
            settings.micro_batches,
            len(batches),
            settings.lead,
            replay=settings.weights == "replay",
        )
        self._bytes_sent += self._engine.train_on(programme, batches)

    def evaluate(self, batches: MicroBatches) -> int:
        """Return the right predictions on the last stage, 0 elsewhere."""
        stage = self._context.job.rank
        programme = list(with_communication(evaluation(len(batches)), stage, self._stages))
        return self._engine.evaluate_on(programme, batches)

    def layers(self) -> dict[int, nn.Module]:
        """Return this stage's layers."""
        return self._module.local_layers()

    def bytes_sent(self) -> int:
        """Return the bytes sent to the neighbouring stages while training."""
        return self._bytes_sent
