"""Which of many triples no other triple is at least as good as in every respect."""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.planning.arcs import Integers


def non_dominated(first: Integers, second: Integers, third: Integers) -> NDArray[np.intp]:
    """Return positions of the triples that are not dominated, each triple once, less is better.

    Kung, Luccio and Preparata (1975): in ascending order of `first`, a triple is dominated exactly
    if an earlier one has neither more of `second` nor of `third`. Of these only the staircase
    counts on which `third` falls while `second` rises. O(n log n) for n triples and few on the
    staircase. The positions are in ascending order of (first, second, third).
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
    """Return the order by the first key, then the second and so on; as `lexsort`, of any type."""
    order = np.arange(len(keys[0]))
    for key in reversed(keys):
        order = order[np.argsort(key[order], kind="stable")]
    return order
