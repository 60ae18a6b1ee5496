"""How long passes, messages and averages take: fixed times, and how they vary."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.schedules.instructions import (
    Backward,
    BackwardInput,
    BackwardWeights,
    Computation,
    Forward,
    Replay,
    Update,
)
from hpc_lpm.schedules.placement import Placement


@dataclass(frozen=True)
class PipelineClock:
    """Seconds of every stage for one micro-batch, and of every boundary for one message.

    `forward_seconds` and `backward_seconds` have one entry per stage, `boundary_seconds` one less.
    `averaging_seconds` has what a stage's replicas take to average the gradients of a step, one
    entry per stage; without replicas there is none. `halves_seconds` has what the halves of each
    stage's backward take where a schedule runs them apart, `BackwardInput` and `BackwardWeights`;
    without it they take half of a backward each.
    """

    forward_seconds: Sequence[float]
    backward_seconds: Sequence[float]
    boundary_seconds: Sequence[float]
    overlap: bool = True
    averaging_seconds: Sequence[float] = ()
    halves_seconds: Sequence[tuple[float, float]] = ()

    def compute_seconds(self, stage: int, instruction: Computation) -> float:
        """Return the seconds of a pass; an optimizer step is taken to cost nothing."""
        match instruction:
            case Forward() | Replay():
                return self.forward_seconds[stage]
            case Backward():
                return self.backward_seconds[stage]
            case BackwardInput():
                return self.halves_at(stage)[0]
            case BackwardWeights():
                return self.halves_at(stage)[1]
        return 0.0

    def halves_at(self, stage: int) -> tuple[float, float]:
        """Return the seconds of a backward's halves: gradients of the input, of the weights."""
        if self.halves_seconds:
            return self.halves_seconds[stage]
        return self.backward_seconds[stage] / 2, self.backward_seconds[stage] / 2

    def transfer_seconds(self, boundary: int) -> float:
        """Return the seconds of a message between stages `boundary` and `boundary + 1`."""
        return self.boundary_seconds[boundary]

    def all_reduce_seconds(self, stage: int) -> float:
        """Return the seconds from the start of an average to the update that waits for it."""
        return self.averaging_seconds[stage] if self.averaging_seconds else 0.0


@dataclass(frozen=True)
class Jitter:
    """By which factors the passes of a device take longer or shorter than the clock says.

    Attributes:
        sigma: the standard deviation of the factor's logarithm, whose mean is 1 (lognormal).
        stall_share: the share of passes that stall besides.
        stall_factor: how many times as long those take.
        seed: decides the factors, together with the number of the device.
    """

    sigma: float = 0.0
    stall_share: float = 0.0
    stall_factor: float = 1.0
    seed: int = 0

    def factors(self, device: int, count: int) -> NDArray[np.float32]:
        """Return the factors of a device's passes, in order; device r K + k is replica r of k."""
        generator = np.random.default_rng((self.seed, device))
        factors = generator.standard_normal(count, np.float32)
        factors *= np.float32(self.sigma)
        factors -= np.float32(self.sigma**2 / 2)
        np.exp(factors, out=factors)
        if self.stall_share:
            stalled = generator.random(count, np.float32) < self.stall_share
            factors[stalled] *= np.float32(self.stall_factor)
        return factors


class JitteredClock:
    """A clock whose passes vary, to play the programmes of one replica once."""

    def __init__(
        self, clock: PipelineClock, jitter: Jitter, passes: Sequence[int], placement: Placement
    ) -> None:
        """Prepare the factors of as many passes of every device as `passes` says."""
        self._clock = clock
        self._placement = placement
        self._factors = [
            iter(jitter.factors(device, count).tolist()) for device, count in enumerate(passes)
        ]

    @property
    def overlap(self) -> bool:
        """Whether stages compute while their messages travel."""
        return self._clock.overlap

    def compute_seconds(self, stage: int, instruction: Computation) -> float:
        """Return the seconds of the next pass of the device that holds the stage."""
        seconds = self._clock.compute_seconds(stage, instruction)
        if isinstance(instruction, Update):
            return seconds
        factor: float = next(self._factors[self._placement.device(stage)])
        return seconds * factor

    def transfer_seconds(self, boundary: int) -> float:
        """Return the seconds of a message between stages `boundary` and `boundary + 1`."""
        return self._clock.transfer_seconds(boundary)

    def all_reduce_seconds(self, stage: int) -> float:
        """Return the seconds from the start of an average to the update that waits for it."""
        return self._clock.all_reduce_seconds(stage)
