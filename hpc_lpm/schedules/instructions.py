"""What one stage can be told to do. Every instruction names the micro-batch it is about.

Micro-batches are numbered n = 0, 1, 2, ... over the whole programme, optimizer steps likewise.
`str()` of an instruction is short, as drawn in a schedule: F3, B3, U0, RA3, SA3, RG3, SG3.
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class _AboutMicroBatch:
    micro_batch: int
    symbol: ClassVar[str]

    def __str__(self) -> str:
        return f"{self.symbol}{self.micro_batch}"


class Forward(_AboutMicroBatch):
    """output = stage(input of the micro-batch); on the last stage also the loss."""

    __slots__ = ()
    symbol = "F"


class Replay(_AboutMicroBatch):
    """The forward again, under the weights of now, whose graph the backward then goes through."""

    __slots__ = ()
    symbol = "R"


class Backward(_AboutMicroBatch):
    """gradient of the input, and gradients of the weights added to those accumulated so far."""

    __slots__ = ()
    symbol = "B"


class SendActivation(_AboutMicroBatch):
    """Hand the output of the micro-batch to the next stage, without waiting for it."""

    __slots__ = ()
    symbol = "SA"


class ReceiveActivation(_AboutMicroBatch):
    """Wait for the input of the micro-batch from the previous stage."""

    __slots__ = ()
    symbol = "RA"


class SendGradient(_AboutMicroBatch):
    """Hand the gradient of the input to the previous stage, without waiting for it."""

    __slots__ = ()
    symbol = "SG"


class ReceiveGradient(_AboutMicroBatch):
    """Wait for the gradient of the output from the next stage."""

    __slots__ = ()
    symbol = "RG"


@dataclass(frozen=True, slots=True)
class Update:
    """Optimizer step number `step` of this stage alone; clears the accumulated gradients."""

    step: int

    def __str__(self) -> str:
        return f"U{self.step}"


Computation = Forward | Replay | Backward | Update
"""What takes a stage's own time."""

Instruction = (
    Forward
    | Replay
    | Backward
    | Update
    | SendActivation
    | ReceiveActivation
    | SendGradient
    | ReceiveGradient
)
"""Anything a stage programme is made of."""

Programme = list[Instruction]
"""The instructions of one stage, in the order in which it executes them."""
