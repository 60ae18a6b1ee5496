"""Our programmes in the form that DeepSpeed's instruction loop executes."""

from collections.abc import Iterator
from dataclasses import asdict

from deepspeed.runtime.pipe.schedule import PipeInstruction

from hpc_lpm.schedules.instructions import (
    Backward,
    Forward,
    Instruction,
    Programme,
    ReceiveActivation,
    ReceiveGradient,
    Replay,
    SendActivation,
    SendGradient,
    Update,
)

COMMANDS: dict[type, type[PipeInstruction]] = {
    kind: type(kind.__name__, (PipeInstruction,), {"__doc__": kind.__doc__})
    for kind in (
        Forward,
        Replay,
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
    """Yields one DeepSpeed instruction a step, as its engine's loop expects of a schedule.

    `current` is the instruction under way, as ours.
    """

    def __init__(self, programme: Programme) -> None:
        self._programme = programme
        self.current: Instruction | None = None

    def num_pipe_buffers(self) -> int:
        """None: our engine keeps what is in flight by micro-batch, not in numbered buffers."""
        return 0

    def __iter__(self) -> Iterator[list[PipeInstruction]]:
        for instruction in self._programme:
            self.current = instruction
            yield [COMMANDS[type(instruction)](**asdict(instruction))]
