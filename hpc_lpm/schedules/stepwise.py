"""A stage's programme an optimizer step at a time, while nobody knows how many steps will follow.

The programmes of a schedule for more and more steps begin alike: up to the first forward pass of
step s, that for s steps is that for any larger number. What a stage executes of step s is what
stands there between the first forward pass of step s and that of the next one; behind the last step
comes the rest of the programme for exactly that many, in which the pipeline drains. In the steady
state the part of a step is that of the step before with other numbers, so that a training of any
length takes no more memory than its first few steps.
"""

from collections import Counter
from collections.abc import Callable

from hpc_lpm.schedules.insertions import lagged_micro_batches
from hpc_lpm.schedules.instructions import (
    Backward,
    BackwardWeights,
    Forward,
    Instruction,
    Programme,
    ReceiveActivation,
    ReceiveTiedWeights,
)

_FIRST_STEPS = 4


class StepwiseProgramme:
    """The programme of one stage, whose steps are asked for in order.

    Args:
        programme_of: returns this stage's programme for a number of micro-batches.
        micro_batches_per_step: the number of micro-batches of an optimizer step.
    """

    def __init__(
        self, programme_of: Callable[[int], Programme], micro_batches_per_step: int
    ) -> None:
        self._programme_of = programme_of
        self._per_step = micro_batches_per_step
        self._know(_FIRST_STEPS)

    def step(self, step: int) -> Programme:
        """Return what the stage executes of a step that is not the last one."""
        known, steps = self._within_reach(step)
        return [instruction.later(steps * self._per_step, steps) for instruction in known]

    def rest(self, step: int, micro_batches: int) -> Programme:
        """Return what the stage executes from the last step on, until the pipeline is empty.

        Args:
            step: the last step.
            micro_batches: the number of its micro-batches, which may be fewer than usual.

        Raises:
            RuntimeError: if the programme for that many steps begins otherwise than that for more.
        """
        _, later = self._within_reach(step)
        near = step - later
        shortest = self._programme_of(near * self._per_step + micro_batches)
        begun = self._programme[: self._begins[near]]
        if shortest[: len(begun)] != begun:
            differing = next(
                place
                for place, pair in enumerate(zip(shortest, begun, strict=False))
                if pair[0] != pair[1]
            )
            raise RuntimeError(
                f"the programme for {near + 1} steps differs from that for more before the last "
                f"step begins, at instruction {differing} ({begun[differing]}): this is a defect "
                "of the schedule"
            )
        return [item.later(later * self._per_step, later) for item in shortest[len(begun) :]]

    def is_lagged(self, micro_batch: int) -> bool:
        """Return whether an update comes between the two passes of a micro-batch."""
        step, place = divmod(micro_batch, self._per_step)
        _, later = self._within_reach(step)
        return (step - later) * self._per_step + place in self._lagged

    def _within_reach(self, step: int) -> tuple[Programme, int]:
        """Return the part of a step, and by how many steps it must be moved to be that of `step`.

        The parts of the last steps that are known repeat if the steady state has been reached.
        """
        while step > self._last and not self._is_steady:
            self._know(2 * self._steps)
        near = min(step, self._last)
        return self._known(near), step - near

    def _know(self, steps: int) -> None:
        self._steps = steps
        self._programme = self._programme_of(steps * self._per_step)
        self._lagged = lagged_micro_batches(self._programme)
        self._begins = [0, *(self._beginning(step) for step in range(1, steps))]
        # What follows the beginning of the last step would be another with more of them.
        self._last = steps - 2
        before, last = self._known(self._last - 1), self._known(self._last)
        moved = [item.later(self._per_step, 1) for item in before]
        self._is_steady = moved == last and self._has_everything(last) and self._lags_alike()

    def _known(self, step: int) -> Programme:
        return self._programme[self._begins[step] : self._begins[step + 1]]

    def _has_everything(self, part: Programme) -> bool:
        """Tell if a part has all that repeats: the passes of M micro-batches, and each message."""
        whole = {_kind(item) for item in self._programme}
        begun = Counter(item.chunk for item in part if isinstance(item, Forward))
        ended = Counter(item.chunk for item in part if isinstance(item, Backward | BackwardWeights))
        chunks = {item.chunk for item in self._programme if isinstance(item, Forward)}
        every_one = dict.fromkeys(chunks, self._per_step)
        return {_kind(item) for item in part} == whole and begun == ended == every_one

    def _lags_alike(self) -> bool:
        before, last = (
            {n % self._per_step for n in self._lagged if n // self._per_step == step}
            for step in (self._last - 1, self._last)
        )
        return before == last

    def _beginning(self, step: int) -> int:
        """Return where a step begins: with its first forward pass and what that waits for."""
        first = next(place for place, item in enumerate(self._programme) if self._opens(item, step))
        while isinstance(self._programme[first - 1], ReceiveTiedWeights):
            first -= 1
        return first

    def _opens(self, instruction: Instruction, step: int) -> bool:
        return (
            isinstance(instruction, ReceiveActivation | Forward)
            and instruction.micro_batch >= step * self._per_step
        )


def _kind(instruction: Instruction) -> tuple[type, int | None]:
    """Return what an instruction is, with its chunk, or the other end of a tie's message."""
    place = getattr(instruction, "stage", getattr(instruction, "chunk", None))
    return type(instruction), place
