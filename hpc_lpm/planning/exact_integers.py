"""Arrays of exact integers, and comparisons of many long ones at the speed of floating point.

What is compared are weighted sums of columns of integers, one sum a cut. All sums are computed at
once in doubles; where two come closer than rounding allows to tell, the integers themselves decide.
Sums below 2^53 are exact in doubles and never need that.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[Any]
"""Exact integers: int64, or Python's own where they may grow beyond it."""

_LARGEST_MACHINE_INTEGER = 2**61
_EXACT_DOUBLES = 2**53
_ROUNDING = 2.0**-47
"""Above the error of a sum of three rounded products that are together at most 1."""


def integers(values: Sequence[int], largest: int) -> Integers:
    """Return an array of exact integers: of the machine's where `largest` fits, else Python's."""
    fits = largest < _LARGEST_MACHINE_INTEGER
    return np.array(values, dtype=np.int64 if fits else object)


class Column:
    """One kind of integer, with one value for every cut."""

    def __init__(self, values: Sequence[int]) -> None:
        self.values = values
        self.peak = max(map(abs, values), default=0)

    @cached_property
    def plain(self) -> NDArray[np.float64]:
        """The integers as doubles, exact if they are below 2^53."""
        return np.array(self.values, dtype=np.float64)

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """The integers by the largest of them, rounded."""
        return np.array([value / max(1, self.peak) for value in self.values])


class WeightedSums:
    """sum of weight x column + constant for a range of cuts; indices count from its first cut."""

    def __init__(self, terms: Sequence[tuple[int, Column]], cuts: range, constant: int = 0) -> None:
        self._terms = [(weight, column) for weight, column in terms if weight]
        self._constant = constant
        self._cuts = cuts
        self.largest = abs(constant) + sum(abs(weight) * column.peak for weight, column in terms)

    def __len__(self) -> int:
        return len(self._cuts)

    def exact(self, index: SupportsIndex) -> int:
        """Return one of the sums."""
        cut = self._cuts[index]
        return self._constant + sum(weight * column.values[cut] for weight, column in self._terms)

    def rounded(self, scale: int | None) -> NDArray[np.float64]:
        """Return all sums divided by `scale`, rounded; without a scale they have to be exact."""
        at = slice(self._cuts.start, self._cuts.stop)
        sums = np.zeros(len(self._cuts))
        for weight, column in self._terms:
            if scale is None:
                sums += weight * column.plain[at]
            else:
                sums += (weight * column.peak / scale) * column.shares[at]
        return sums + (self._constant if scale is None else self._constant / scale)


@dataclass
class Counted:
    """How many of some sums are at most each of some limits.

    `order` sorts the sums so that the first `counts[i]` of them are those at most limit i.
    """

    order: NDArray[np.intp]
    counts: NDArray[np.int64]
    _compared: "_Compared"

    @cached_property
    def gap(self) -> int | None:
        """The least that a limit is short of the next sum, None if every limit has room for all."""
        return self._compared.gap(self.order, self.counts)


@dataclass(frozen=True)
class _Compared:
    """Sums and limits, and both rounded: by less than `error`, over `scale` if there is one."""

    sums: WeightedSums
    limits: WeightedSums
    rounded: NDArray[np.float64]
    needs: NDArray[np.float64]
    error: float
    scale: int | None

    def gap(self, order: NDArray[np.intp], counts: NDArray[np.int64]) -> int | None:
        """Return the least that a limit is short of the next sum."""
        short = np.flatnonzero(counts < len(self.sums))
        if not len(short):
            return None
        following = order[counts[short]]
        gaps = self.rounded[following] - self.needs[short]
        if self.scale is None:
            return int(gaps.min())
        near = np.flatnonzero(gaps <= gaps.min() + 4 * self.error)
        return min(
            self.sums.exact(after) - self.limits.exact(limit)
            for after, limit in zip(following[near], short[near], strict=True)
        )


def count_at_most(sums: WeightedSums, limits: WeightedSums, *, ascending: bool) -> Counted:
    """Count the sums that are at most each limit; `ascending` tells that they grow with the cut."""
    largest = max(sums.largest, limits.largest)
    scale, error = (None, 0.0) if largest < _EXACT_DOUBLES else (largest, _ROUNDING)
    rounded, needs = sums.rounded(scale), limits.rounded(scale)
    order = np.arange(len(sums)) if ascending else _order(sums, rounded, error)
    compared = _Compared(sums, limits, rounded, needs, error, scale)
    in_order = rounded if ascending else rounded[order]
    if scale is None:
        return Counted(order, np.searchsorted(in_order, needs, side="right"), compared)
    # Rounding may have put equal sums of an ascending column in another order.
    in_order = np.maximum.accumulate(in_order)
    low = np.searchsorted(in_order, needs - error, side="right").astype(np.int64)
    high = np.searchsorted(in_order, needs + error, side="right").astype(np.int64)
    for index in np.flatnonzero(low < high):
        first, behind = int(low[index]), int(high[index])
        low[index] = bisect_right(order, limits.exact(index), first, behind, key=sums.exact)
    return Counted(order, low, compared)


def _order(sums: WeightedSums, rounded: NDArray[np.float64], error: float) -> NDArray[np.intp]:
    order = np.argsort(rounded, kind="stable")
    if error and (np.diff(rounded[order]) <= 2 * error).any():
        return np.array(sorted(range(len(sums)), key=sums.exact), dtype=np.intp)
    return order
