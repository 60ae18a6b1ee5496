"""DeepSpeed's pipeline engine, running schedules of ours instead of its own."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace

from deepspeed.runtime.config import DeepSpeedConfig
from deepspeed.runtime.pipe.engine import PipelineEngine
from torch import Tensor

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores
from hpc_lpm.engine.gradient_rules import GradientRules
from hpc_lpm.engine.learning_rate import advance
from hpc_lpm.engine.pipeline.executor import StageExecutor
from hpc_lpm.engine.pipeline.gradient_average import GradientAverage
from hpc_lpm.engine.pipeline.lag_compensation import rate_divisor
from hpc_lpm.engine.pipeline.module import PlannedModule
from hpc_lpm.engine.pipeline.rehearsal import PipelineRehearsal
from hpc_lpm.engine.pipeline.transport.channel import StageChannels
from hpc_lpm.engine.pipeline.weight_policy import WeightPolicy
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.engine.ties import TiedParameters
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
from hpc_lpm.schedules.instructions import Programme


class ScheduledPipelineEngine(PipelineEngine):  # type: ignore[misc]
    """DeepSpeed's module, process groups and optimizer step under our own programmes.

    The base class drains the pipeline, broadcasts the loss and synchronises after every batch; here
    a `StageExecutor` executes one programme over as many batches as there are.

    Args:
        context: of the run.
        module: runs the stage's layers.
        policy: what is done with lagged micro-batches.
        tied: the stage's parameters that are tied to others.
        stages_meet: whether all stages are between the same steps at each update, so that they can
            agree on one.
    """

    def __init__(
        self,
        context: RunContext,
        module: PlannedModule,
        policy: WeightPolicy,
        tied: TiedParameters,
        *,
        stages_meet: bool,
    ) -> None:
        settings = context.settings
        config = deepspeed_config(context)
        mpu = module.mpu()
        parameters = tied.without_copies(module.parameters())
        self._updates = context.updating.build(
            parameters,
            module.local_layers(),
            rate_divisor=rate_divisor(settings, context.topology),
        )
        super().__init__(
            args=SimpleNamespace(),
            model=module,
            optimizer=self._updates.optimizer,
            # `_take_model_step` steps it once for each update.
            lr_scheduler=self._updates.scheduler,
            mpu=mpu,
            config=config,
            config_class=DeepSpeedConfig(config, mpu),
            dont_change_device=True,
        )
        self._replica = context.topology.replica
        average = None
        if context.replicas > 1:
            average = GradientAverage(
                parameters,
                self.grid.get_data_parallel_group(),
                context.replicas,
                timeout_seconds=settings.receive_timeout_seconds,
            )
        # Stages that update at different times decide for themselves.
        meeting = context.gather_from_stages if stages_meet else None
        self._executor = StageExecutor(
            context,
            module,
            policy,
            tied,
            updates=self._updates,
            average=average,
            rules=GradientRules(parameters, settings, context.recorder, meeting),
            take_step=self._take_step,
            skip_step=self._skip_step,
        )

    @property
    def loss(self) -> Tensor:
        """A placeholder of the base class, in host memory.

        Its constructor sends it to the next stage, and gloo, which ranks that share a GPU have
        between them, cannot send device memory.
        """
        return self._placeholder

    @loss.setter
    def loss(self, value: Tensor) -> None:
        self._placeholder = value.cpu()

    def connect(self, rehearsal: PipelineRehearsal, channels: StageChannels) -> None:
        """Take over the channels to the neighbouring stages, and what rehearses passes."""
        self._rehearsal = rehearsal
        self._executor.connect(rehearsal, channels)

    def rehearse(
        self, passes: Iterable[RehearsedPass], metrics: Sequence[EvaluationMetric]
    ) -> None:
        """Run passes that leave no trace, to find out what they need; see `PipelineRehearsal`."""
        self._rehearsal.rehearse(passes, metrics)
        self._executor.heed(self._rehearsal)

    def state(self) -> TrainedState:
        """Return this stage's layers, optimizer and scheduler."""
        return TrainedState(
            self.module.local_layers(),
            self.basic_optimizer,
            self._updates.scheduler,
            self._replica,
            self._updates.groups,
        )

    def train_on(
        self,
        programme_of: Callable[[int], Programme],
        batch: MicroBatches,
        following: MicroBatches | None,
    ) -> int:
        """Train on a batch and return the bytes this stage sent; see `StageExecutor.train`."""
        with self._backward_announced():
            return self._executor.train(programme_of, batch, following)

    def evaluate_on(
        self, programme: Programme, batches: MicroBatches, metrics: Sequence[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Execute a programme of forward passes; the last stage returns the scores."""
        return self._executor.evaluate(programme, batches, metrics)

    @contextmanager
    def _backward_announced(self) -> Iterator[None]:
        # DeepSpeed's hooks on the weights refuse a backward that they were not told about.
        self._running_engine_backward = True
        try:
            yield
        finally:
            self._running_engine_backward = False

    def _take_step(self) -> None:
        self._force_grad_boundary = True
        self._take_model_step(None)
        self._force_grad_boundary = False

    def _skip_step(self) -> None:
        self.zero_grad()
        advance(self._updates.scheduler, 1)


def deepspeed_config(context: RunContext) -> dict[str, object]:
    """Return DeepSpeed's configuration for a run; DeepSpeed itself does not clip."""
    settings = context.settings
    return {
        "train_batch_size": settings.batch_size,
        "train_micro_batch_size_per_gpu": context.micro_batch_size,
        "gradient_accumulation_steps": settings.micro_batches,
        # Unless told otherwise DeepSpeed clips the global norm to 1, with an all-reduce every step.
        "gradient_clipping": 0.0,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
