"""Planner `pipedream`: the fastest slowest stage, transfers ignored.

The dynamic programme that PipeDream (Narayanan et al., 2019) partitions with, for one device a
stage: the slowest stage of the first j layers in k stages is, at best,
A(k, j) = min over i < j of max(A(k - 1, i), time of layers [i, j)).
"""

import numpy as np

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.exact_integers import integers


def pipedream_cuts(model: CostModel) -> tuple[int, ...]:
    """Return the cuts, in O(L^2 K) time and O(L K) memory.

    Of several best i the smallest is taken, so among plans of which every prefix has the least
    slowest stage too it is the one whose last cut is smallest, then the one before it, and so on.
    """
    layers, stages = model.layers, model.stages
    times = model.layer_time_sums()
    sums = integers(times, times[-1])
    slowest = sums
    last_cuts = []
    for stage in range(1, stages):
        before, slowest = slowest, np.zeros_like(sums)
        last_cut = np.zeros(layers + 1, dtype=np.intp)
        for stop in range(stage + 1, layers - stages + stage + 2):
            candidates = np.maximum(before[stage:stop], sums[stop] - sums[stage:stop])
            best = int(candidates.argmin())
            last_cut[stop] = stage + best
            slowest[stop] = candidates[best]
        last_cuts.append(last_cut)
    cuts = [layers]
    for last_cut in reversed(last_cuts):
        cuts.append(int(last_cut[cuts[-1]]))
    return (0, *reversed(cuts))
