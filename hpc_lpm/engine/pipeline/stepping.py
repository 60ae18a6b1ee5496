"""What takes the optimizer's steps of one stage: DeepSpeed's engine, or the optimizer itself."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import nn

from hpc_lpm.engine.learning_rate import advance
from hpc_lpm.engine.updating import Updates


class Stepping(Protocol):
    """Takes the optimizer's steps of one stage."""

    def take_step(self) -> None:
        """Update the weights from the accumulated gradients and clear these."""

    def skip_step(self) -> None:
        """Clear the gradients without an update, which counts as one all the same."""

    def around_training(self) -> AbstractContextManager[None]:
        """Surround what runs backward passes."""


class PlainStepping:
    """Calls the optimizer and the scheduler themselves, as DeepSpeed does at this precision.

    Args:
        module: whose gradients are cleared.
        updates: what updates its weights.
    """

    def __init__(self, module: nn.Module, updates: Updates) -> None:
        self._module = module
        self._updates = updates

    def take_step(self) -> None:
        """Update the weights from the accumulated gradients and clear these."""
        self._updates.optimizer.step()
        self.skip_step()

    def skip_step(self) -> None:
        """Clear the gradients without an update, which counts as one all the same."""
        self._module.zero_grad()
        advance(self._updates.scheduler, 1)

    def around_training(self) -> AbstractContextManager[None]:
        """Do nothing: nobody watches over backward passes."""
        return nullcontext()
