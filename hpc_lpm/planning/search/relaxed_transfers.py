"""Bounds on cuts where transfers do not overlap with compute.

A stage then takes C(j) - C(i) + 2 X(i) + 2 X(j), C the compute of all layers before a cut, which
no longer grows with every layer. But if after k stages the cut lies at most at H, then that after
k + 1 stages is at most the last j with C(j) + 2 X(j) <= P + max over i <= H of C(i) - 2 X(i): the
best start is taken for every stop. The chain read backwards gives bounds from below alike.

Bounds only narrow the exact search, so they are computed in floating point and rounded to the safe
side: every comparison lets through what is within rounding of its limit.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.planning.cost import BoundaryLink, CostModel
from hpc_lpm.planning.memory import MemoryFactors

_ROUNDING = 1e-12
_FIRST_CHUNK = 64
_LONGEST_TRANSFER = 1e9
_LONGEST_PERIOD = 1e10
"""Times are in units of the compute of all layers; nothing longer needs to be told apart.

A period that long has room for any two transfers.
"""


@lru_cache(maxsize=2)
def relaxed_transfers(model: CostModel) -> "RelaxedTransfers":
    """Return the bounds of a model; the latest are cached, since a search asks for them often."""
    return RelaxedTransfers(model)


@dataclass(frozen=True)
class _Stage:
    """One stage: compute of all layers before a cut is `forward` x F + `backward` x B.

    `before` and `after` are 2 X over the cuts at its ends.
    """

    forward: int
    backward: int
    unit_seconds: Fraction
    memory: MemoryFactors
    before: NDArray[np.float64]
    after: NDArray[np.float64]


class RelaxedTransfers:
    """Bounds on the cuts of one model, for any period and memory limits."""

    def __init__(self, model: CostModel) -> None:
        total = max(1, model.forward_sums[-1] + model.backward_sums[-1])
        self._layers = model.layers
        forwards = _Prefix(model.forward_sums, total)
        backwards = _Prefix(model.backward_sums, total)
        times: dict[tuple[BoundaryLink, Fraction], NDArray[np.float64]] = {}
        nothing = np.zeros(model.layers + 1)

        def twice(boundary: int, unit: Fraction) -> NDArray[np.float64]:
            if not 0 <= boundary < model.stages - 1:
                return nothing
            key = model.links[boundary], unit
            if key not in times:
                times[key] = _transfers(model, *key)
            return times[key]

        stages = []
        for number, factors in enumerate(model.factors):
            unit = factors.seconds_per_work * total
            stages.append(
                _Stage(
                    factors.forward,
                    factors.backward,
                    unit,
                    factors.memory,
                    twice(number - 1, unit),
                    twice(number, unit),
                )
            )
        held = (model.parameter_sums, model.activation_sums, model.further_state_sums)
        self._ahead = _Chain(stages, forwards, backwards, held)
        self._back = _Chain(
            [
                _Stage(
                    stage.forward,
                    stage.backward,
                    stage.unit_seconds,
                    stage.memory,
                    stage.after[::-1],
                    stage.before[::-1],
                )
                for stage in reversed(stages)
            ],
            forwards.reversed(),
            backwards.reversed(),
            tuple(map(_reversed, held)),
        )

    def highest(self, period: Fraction, memory: Sequence[int]) -> list[int]:
        """Return the highest cut after 0 to K stages that may be reached from the front."""
        return self._ahead.highest(period, memory)

    def lowest(self, period: Fraction, memory: Sequence[int]) -> list[int]:
        """Return the lowest cut after 0 to K stages from which the end may be reached."""
        mirrored = self._back.highest(period, memory[::-1])
        return [self._layers - cut for cut in reversed(mirrored)]


class _Prefix:
    """Sums over the layers before a cut as shares of `total`, rounded."""

    def __init__(self, sums: Sequence[int], total: int) -> None:
        self.values = [value / total for value in sums]
        self.array = np.array(self.values)

    def reversed(self) -> "_Prefix":
        mirrored = object.__new__(_Prefix)
        mirrored.array = (self.array[-1] - self.array)[::-1]
        mirrored.values = mirrored.array.tolist()
        return mirrored


class _Chain:
    """Stages that fill a chain from its front."""

    def __init__(
        self,
        stages: Sequence[_Stage],
        forwards: _Prefix,
        backwards: _Prefix,
        held: Sequence[Sequence[int]],
    ) -> None:
        """Take the stages, and sums of layers: times, and what `MemoryFactors.bytes_of` takes."""
        self._stages = stages
        self._forwards = forwards
        self._backwards = backwards
        self._held = held
        self._layers = len(held[0]) - 1

    def highest(self, period: Fraction, memory: Sequence[int]) -> list[int]:
        """Return the highest cut after 0 to K stages; a stage that finds no stop gets no layer."""
        periods: dict[Fraction, float] = {}
        cuts = [0]
        for number, stage in enumerate(self._stages):
            unit = stage.unit_seconds
            if unit not in periods:
                periods[unit] = _in_units(period, unit, _LONGEST_PERIOD)
            last = self._layers - (len(self._stages) - 1 - number)
            until = self._within_memory(stage, cuts[-1], last, memory[number])
            best = self._best_start(stage, number, cuts[-1])
            cuts.append(self._furthest(stage, cuts[-1], until, best + periods[unit]))
        return cuts

    def _compute(self, stage: _Stage, cuts: slice) -> NDArray[np.float64]:
        forwards: NDArray[np.float64] = stage.forward * self._forwards.array[cuts]
        backwards: NDArray[np.float64] = stage.backward * self._backwards.array[cuts]
        return forwards + backwards

    def _compute_before(self, stage: _Stage, cut: int) -> float:
        return (
            stage.forward * self._forwards.values[cut]
            + stage.backward * self._backwards.values[cut]
        )

    def _best_start(self, stage: _Stage, first: int, highest: int) -> float:
        """Return the largest C(i) - 2 X(i) of the starts from `first` to `highest`."""
        best, stop, chunk = -np.inf, highest + 1, _FIRST_CHUNK
        while stop > first:
            begin = max(first, stop - chunk)
            cuts = slice(begin, stop)
            best = max(best, float((self._compute(stage, cuts) - stage.before[cuts]).max()))
            if begin == first or self._compute_before(stage, begin - 1) <= best:
                break
            stop, chunk = begin, 2 * chunk
        return float(best)

    def _furthest(self, stage: _Stage, start: int, until: int, limit: float) -> int:
        """Return the last stop up to `until` with C + 2 X within the limit, `start` if none."""
        limit += _ROUNDING * (abs(limit) + stage.forward + stage.backward)

        def compute(cut: int) -> float:
            return self._compute_before(stage, cut)

        stops = range(start, until + 1)
        stop, chunk = start + bisect_right(stops, limit, key=compute), _FIRST_CHUNK
        while stop > start:
            begin = max(start, stop - chunk)
            cuts = slice(begin, stop)
            possible = np.flatnonzero(self._compute(stage, cuts) + stage.after[cuts] <= limit)
            if len(possible):
                return begin + int(possible[-1])
            stop, chunk = begin, 2 * chunk
        return start

    def _within_memory(self, stage: _Stage, start: int, last: int, limit: int) -> int:
        def held(cut: int) -> int:
            return stage.memory.bytes_of(*(sums[cut] - sums[start] for sums in self._held))

        if last < start or held(last) <= limit:
            return last
        return start - 1 + bisect_right(range(start, last + 1), limit, key=held)


def _transfers(model: CostModel, link: BoundaryLink, unit: Fraction) -> NDArray[np.float64]:
    """Return 2 X over every cut in units of compute, 0 at the ends of the chain."""
    times = np.array(
        [_in_units(2 * link.seconds(size), unit, _LONGEST_TRANSFER) for size in model.cut_bytes]
    )
    times[[0, -1]] = 0.0
    return times


def _in_units(seconds: Fraction, unit: Fraction, longest: float) -> float:
    return float(min(seconds / unit, Fraction(longest)))


def _reversed(sums: Sequence[int]) -> list[int]:
    return [sums[-1] - value for value in reversed(sums)]
