"""Planners `uniform` and `parameters`: what DeepSpeed's partition methods of these names aim at.

For `parameters` DeepSpeed's own search is a heuristic for the least difference between the largest
and the smallest stage. This one is exact for: least parameters in the largest stage, then most in
the smallest, then smallest cut positions.
"""

import numpy as np

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.exact_integers import Integers, integers

_NO_PLAN = -1


def uniform_cuts(model: CostModel) -> tuple[int, ...]:
    """Return cuts with stages of floor(L / K) layers, the first L mod K of them one longer."""
    size, longer = divmod(model.layers, model.stages)
    return tuple(stage * size + min(stage, longer) for stage in range(model.stages + 1))


def parameters_cuts(model: CostModel) -> tuple[int, ...]:
    """Return the cuts; dynamic programmes over all suffixes of the chain, O(K L^2)."""
    total = model.parameter_sums[-1]
    sums = integers(model.parameter_sums, 2 * total + 2)
    largest = _least_largest(sums, model.stages, none=total + 1)
    fills = _most_in_smallest(sums, model.stages, largest, unbounded=total + 1)
    cuts = [0]
    for stage in range(model.stages):
        start = cuts[-1]
        held = sums[start + 1 :] - sums[start]
        rest = fills[stage + 1][start + 1 :]
        good = np.minimum(held, rest) >= fills[0][0]
        cuts.append(start + 1 + int(np.flatnonzero(good)[0]))
    return tuple(cuts)


def _least_largest(sums: Integers, stages: int, none: int) -> int:
    """Return the least size of the largest stage."""
    layers = len(sums) - 1
    best = np.full_like(sums, none)
    best[layers] = 0
    for _ in range(stages):
        following, best = best, np.full_like(sums, none)
        for start in range(layers):
            held = sums[start + 1 :] - sums[start]
            best[start] = np.maximum(held, following[start + 1 :]).min()
    return int(best[0])


def _most_in_smallest(sums: Integers, stages: int, largest: int, unbounded: int) -> list[Integers]:
    """Return, by stage and start, the most that the smallest of the stages from there on holds."""
    layers = len(sums) - 1
    best = np.full_like(sums, _NO_PLAN)
    best[layers] = unbounded
    table = [best]
    for _ in range(stages):
        following, best = best, np.full_like(sums, _NO_PLAN)
        for start in range(layers):
            held = sums[start + 1 :] - sums[start]
            smallest = np.minimum(held, following[start + 1 :])
            best[start] = np.where(held <= largest, smallest, _NO_PLAN).max()
        table.append(best)
    return table[::-1]
