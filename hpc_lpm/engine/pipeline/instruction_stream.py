"""Our programmes in the form that DeepSpeed's instruction loop executes."""

from collections.abc import Iterator
from dataclasses import asdict

from deepspeed.runtime.pipe.schedule import PipeInstruction

from hpc_lpm.schedules.instructions import (
    Backward,
    Forward,
    Programme,
    ReceiveActivation,
    ReceiveGradient,
    SendActivation,
    SendGradient,
    Update,
)

COMMANDS: dict[type, type[PipeInstruction]] = {
    kind: type(kind.__name__, (PipeInstruction,), {"__doc__": kind.__doc__})
    for kind in (
        Forward,
        Backward,
        SendActivation,
        ReceiveActivation,
        SendGradient,
        ReceiveGradient,
        Update,
    )
}
"""Our instructions as DeepSpeed's: same names, but about a micro-batch instead of a buffer."""


class InstructionStream:
    """Yields one DeepSpeed instruction a step, as its engine's loop expects of a schedule."""

    def __init__(self, programme: Programme) -> None:
        self._programme = programme

    def num_pipe_buffers(self) -> int:
        """None: our engine keeps what is in flight by micro-batch, not in numbered buffers."""
        return 0

    def __iter__(self) -> Iterator[list[PipeInstruction]]:
        for instruction in self._programme:
            yield [COMMANDS[type(instruction)](**asdict(instruction))]


def lagged_micro_batches(programme: Programme) -> frozenset[int]:
    """Return the micro-batches with an update between their forward and their backward pass."""
    updates = 0
    forward_version: dict[int, int] = {}
    lagged = set()
    for instruction in programme:
        match instruction:
            case Update():
                updates += 1
            case Forward(n):
                forward_version[n] = updates
            case Backward(n) if forward_version[n] != updates:
                lagged.add(n)
    return frozenset(lagged)
