"""The instructions of a device. Each names the micro-batch or the optimizer step it is about.

Micro-batches are numbered n = 0, 1, 2, ... over the whole programme, optimizer steps likewise. A
device that holds several chunks of the model numbers them from 0, in the order of the model.
`str()` of an instruction is short, as drawn in a schedule: F3, B3, I3, W3, A0, U0, RA3, SA3, RG3,
SG3, STG0; F3.1 is about chunk 1.
"""

from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True)
class _AboutMicroBatch:
    micro_batch: int
    chunk: int = 0
    symbol: ClassVar[str]

    @property
    def arguments(self) -> tuple[int, ...]:
        """The arguments of an engine's method for this instruction."""
        return (self.micro_batch,)

    def later(self, micro_batches: int, steps: int) -> Self:
        """Return the same instruction so many micro-batches, which are so many steps, later."""
        return type(self)(self.micro_batch + micro_batches, self.chunk)

    def __str__(self) -> str:
        return f"{self.symbol}{self.micro_batch}{f'.{self.chunk}' if self.chunk else ''}"


class Forward(_AboutMicroBatch):
    """Compute the chunk's output for the micro-batch, and the loss at the end of the model."""

    __slots__ = ()
    symbol = "F"


class Replay(_AboutMicroBatch):
    """Run the forward again under the current weights; the backward then uses this run's graph."""

    __slots__ = ()
    symbol = "R"


class Backward(_AboutMicroBatch):
    """Compute the gradient of the input, and accumulate the gradients of the weights."""

    __slots__ = ()
    symbol = "B"


class BackwardInput(_AboutMicroBatch):
    """Compute the gradient of the input, and leave that of the weights for `BackwardWeights`."""

    __slots__ = ()
    symbol = "I"


class BackwardWeights(_AboutMicroBatch):
    """Accumulate the gradients of the weights that `BackwardInput` has left."""

    __slots__ = ()
    symbol = "W"


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
class Reduce:
    """Start averaging the gradients of step `step` over the stage's replicas, without waiting."""

    step: int

    @property
    def arguments(self) -> tuple[int, ...]:
        """The arguments of an engine's method for this instruction."""
        return (self.step,)

    def later(self, micro_batches: int, steps: int) -> Self:
        """Return the same instruction so many steps later."""
        return type(self)(self.step + steps)

    def __str__(self) -> str:
        return f"A{self.step}"


@dataclass(frozen=True, slots=True)
class Update:
    """Take optimizer step number `step` at this stage alone; clear the accumulated gradients.

    If the step was reduced, it first waits for the average.
    """

    step: int

    @property
    def arguments(self) -> tuple[int, ...]:
        """The arguments of an engine's method for this instruction."""
        return (self.step,)

    def later(self, micro_batches: int, steps: int) -> Self:
        """Return the same instruction so many steps later."""
        return type(self)(self.step + steps)

    def __str__(self) -> str:
        return f"U{self.step}"


@dataclass(frozen=True, slots=True)
class _AboutTiedWeights:
    """A message about the weights tied to those of `stage`, for optimizer step `step`."""

    step: int
    stage: int
    symbol: ClassVar[str]

    @property
    def arguments(self) -> tuple[int, ...]:
        """The arguments of an engine's method for this instruction."""
        return (self.step, self.stage)

    def later(self, micro_batches: int, steps: int) -> Self:
        """Return the same instruction so many steps later."""
        return type(self)(self.step + steps, self.stage)

    def __str__(self) -> str:
        return f"{self.symbol}{self.step}"


class SendTiedGradient(_AboutTiedWeights):
    """Hand the accumulated gradients of copies to the stage that owns the weights."""

    __slots__ = ()
    symbol = "STG"


class ReceiveTiedGradient(_AboutTiedWeights):
    """Wait for the gradients of copies and add them to the gradients of the owned weights."""

    __slots__ = ()
    symbol = "RTG"


class SendTiedWeights(_AboutTiedWeights):
    """Hand the updated weights to the stage that holds copies of them."""

    __slots__ = ()
    symbol = "STW"


class ReceiveTiedWeights(_AboutTiedWeights):
    """Wait for the updated weights and take them over."""

    __slots__ = ()
    symbol = "RTW"


TiedMessage = SendTiedGradient | ReceiveTiedGradient | SendTiedWeights | ReceiveTiedWeights
"""Messages about an optimizer step and another stage rather than a micro-batch."""

Pass = Forward | Replay | Backward | BackwardInput | BackwardWeights
"""Instructions that a device spends its time on."""

Computation = Pass | Update
"""Instructions that a device executes without its neighbours."""

PassOrMessage = Pass | SendActivation | ReceiveActivation | SendGradient | ReceiveGradient
"""Instructions about a micro-batch, which concern one chunk of the device."""

Instruction = PassOrMessage | Reduce | Update | TiedMessage
"""Anything that a device's programme can hold."""

Programme = list[Instruction]
"""The instructions of one device, in the order in which it executes them."""
