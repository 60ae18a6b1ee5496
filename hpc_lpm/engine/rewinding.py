"""Goes back to the last checkpoint when a loss or weights are not finite (`--non-finite rewind`).

The same batches would lead from the same weights to the same fault. So those from the checkpoint to
the fault are left out, as in trainings of large language models (PaLM: Chowdhery et al., 2022,
section 5.1): the weights of the checkpoint go on with the batch behind the fault, at the rate of
its step. Which batches are left out depends on what is computed, not on when the ranks stop.
"""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch

from hpc_lpm.engine.checkpoint.store import newest_sound_checkpoint
from hpc_lpm.engine.history import History, Rewind
from hpc_lpm.engine.rank_engine import RankEngine
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.errors import TrainingError


class Rewinding:
    """Notices faults at drains and restores checkpoints in place.

    Args:
        context: of the run.
        engine: of this rank, which has not trained or resumed yet.
        folder: the folder of the run's checkpoints.
    """

    def __init__(self, context: RunContext, engine: RankEngine, folder: Path) -> None:
        self._context = context
        self._engine = engine
        self._folder = folder
        state = engine.trained_state()
        # A checkpoint is restored into an optimizer and a schedule that are at their beginning.
        self._schedule = deepcopy(state.scheduler.state_dict())
        self._groups = [
            {name: value for name, value in group.items() if name != "params"}
            for group in state.optimizer.param_groups
        ]

    def fault_before(self, end: int) -> int | None:
        """Return the first step whose loss is not finite on any rank (collective).

        Where all losses are finite but weights are not, it is the last step, whose update has left
        them so; None if there is no fault.

        Args:
            end: the number of steps done.
        """
        first = self._context.recorder.first_non_finite
        found = self._context.job.all_gather((first, self._weights_are_finite()))
        losses: list[int] = [step for step, _ in found if step is not None]
        if losses:
            return min(losses)
        return None if all(finite for _, finite in found) else end - 1

    def _weights_are_finite(self) -> bool:
        state = self._engine.trained_state()
        held = [
            parameter.detach()
            for group in state.optimizer.param_groups
            for parameter in group["params"]
            if parameter.is_floating_point() and parameter.numel()
        ]
        if not held:
            return True
        largest = torch.stack([each.abs().amax().float() for each in held])
        return bool(torch.isfinite(largest).all())

    def rewind(self, fault: int, history: History) -> str:
        """Restore the newest checkpoint, as one after the step of the fault (collective).

        All checkpoints must be complete.

        Args:
            fault: the step of the fault.
            history: of the run, where the return is noted.

        Returns:
            A sentence for the user.

        Raises:
            TrainingError: on every rank, if there is no checkpoint, or the run has gone back as
                often as it may.
        """
        most = self._context.settings.rewinds
        what = f"step {fault}: the loss or the weights are not finite"
        if len(history.rewinds) >= most:
            raise TrainingError(
                f"{what}, after this run has gone back to a checkpoint {most} times: lower --lr, "
                "look for such values in the data, or allow more --rewinds."
            )
        checkpoint, _ = newest_sound_checkpoint(self._folder, self._context.job)
        if checkpoint is None:
            raise TrainingError(
                f"{what}, and there is no checkpoint in {self._folder} to go back to: save more "
                "often with --checkpoint-steps, lower --lr or look for such values in the data."
            )
        first = checkpoint.manifest.history.step
        state = self._engine.trained_state()
        for group, values in zip(state.optimizer.param_groups, self._groups, strict=True):
            group.update(values)
        state.scheduler.load_state_dict(deepcopy(self._schedule))
        self._engine.put_back(
            checkpoint.going_on(replace(checkpoint.manifest.history, step=history.step))
        )
        history.rewinds.append(Rewind(first, fault))
        return (
            f"{what}: back to the weights of {checkpoint.path}; the batches of steps {first} to "
            f"{fault} are left out ({len(history.rewinds)} of at most {most} rewinds)"
        )
