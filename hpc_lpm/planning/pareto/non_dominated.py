"""Which of many triples no other triple is at least as good as in every respect."""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.planning.exact_integers import Integers

_FEW = 256
_SAMPLE = 32
_WORTHWHILE = 0.8


def non_dominated(first: Integers, second: Integers, third: Integers) -> NDArray[np.intp]:
    """Return positions of the triples that are not dominated, each triple once, less is better.

    The positions are in ascending order of (first, second, third). What a sample dominates is left
    out as long as that takes away much, then the rest is gone through once.
    """
    positions = np.arange(len(first))
    while len(first) > _FEW:
        left = _not_dominated_by_sample(first, second, third)
        worthwhile = len(left) < _WORTHWHILE * len(first)
        first, second, third, positions = first[left], second[left], third[left], positions[left]
        if not worthwhile:
            break
    return positions[_sweep(first, second, third)]


def _not_dominated_by_sample(
    first: Integers, second: Integers, third: Integers
) -> NDArray[np.intp]:
    """Return positions of the triples that no triple of an evenly spaced sample dominates."""
    sample = np.linspace(0, len(first) - 1, _SAMPLE).astype(np.intp)
    sample = sample[_sweep(first[sample], second[sample], third[sample])]
    dominated = np.zeros(len(first), dtype=np.bool_)
    for pivot in sample:
        dominated |= (first >= first[pivot]) & (second >= second[pivot]) & (third >= third[pivot])
    dominated[sample] = False
    return np.flatnonzero(~dominated)


def _sweep(first: Integers, second: Integers, third: Integers) -> NDArray[np.intp]:
    """Return positions of the non-dominated triples by one sweep.

    Kung, Luccio and Preparata (1975): in ascending order a triple is dominated exactly if an
    earlier one has no more of `second` and no more of `third`. Of the earlier ones only the
    staircase counts on which `third` falls while `second` rises.
    """
    order = _ascending(first, second, third)
    steps: list[int] = []
    heights: list[int] = []
    kept: list[int] = []
    for position, step, height in zip(
        order.tolist(), second[order].tolist(), third[order].tolist(), strict=True
    ):
        begin = bisect_right(steps, step)
        if begin and heights[begin - 1] <= height:
            continue
        end = begin
        while end < len(heights) and heights[end] >= height:
            end += 1
        if begin and steps[begin - 1] == step:
            begin -= 1
        steps[begin:end] = [step]
        heights[begin:end] = [height]
        kept.append(position)
    return np.array(kept, dtype=np.intp)


def _ascending(*keys: Integers) -> NDArray[np.intp]:
    """Return the order by the first key, then the second and so on: `lexsort` of any integers."""
    order = np.arange(len(keys[0]))
    for key in reversed(keys):
        order = order[np.argsort(key[order], kind="stable")]
    return order
