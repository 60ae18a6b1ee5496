"""DeepSpeed's pipeline engine, which takes the optimizer's steps of a stage."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from torch import Tensor

from hpc_lpm.engine.learning_rate import advance
from hpc_lpm.engine.pipeline.deepspeed_parts import DeepSpeedConfig, PipelineEngine
from hpc_lpm.engine.pipeline.module import PlannedModule
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.updating import Updates


class ScheduledPipelineEngine(PipelineEngine):  # type: ignore[misc]
    """DeepSpeed's module, process groups and optimizer step under our own programmes.

    The base class drains the pipeline, broadcasts the loss and synchronises after every batch; here
    a `ProgrammeExecutor` executes one programme over as many batches as there are.

    Args:
        context: of the run.
        module: runs the stage's layers.
        updates: what updates the stage's weights.
    """

    def __init__(self, context: RunContext, module: PlannedModule, updates: Updates) -> None:
        config = deepspeed_config(context)
        mpu = module.mpu()
        self._updates = updates
        super().__init__(
            args=SimpleNamespace(),
            model=module,
            optimizer=updates.optimizer,
            # `_take_model_step` steps it once for each update.
            lr_scheduler=updates.scheduler,
            mpu=mpu,
            config=config,
            config_class=DeepSpeedConfig(config, mpu),
            dont_change_device=True,
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

    def take_step(self) -> None:
        """Update the weights from the accumulated gradients and clear these."""
        self._force_grad_boundary = True
        self._take_model_step(None)
        self._force_grad_boundary = False

    def skip_step(self) -> None:
        """Clear the gradients without an update, which counts as one all the same."""
        self.zero_grad()
        advance(self._updates.scheduler, 1)

    @contextmanager
    def around_training(self) -> Iterator[None]:
        """Announce backward passes, which DeepSpeed's hooks on the weights refuse otherwise."""
        self._running_engine_backward = True
        try:
            yield
        finally:
            self._running_engine_backward = False


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
