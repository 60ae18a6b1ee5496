"""Planner `greedy`: block partition, the idea that torchgpipe balances with.

I. Barany and V. S. Grinberg, Block partitions of sequences (Israel Journal of Mathematics 206,
2015): every sequence has a partition into K blocks whose sums differ by at most its largest
element, and moving one element at a time towards a smallest block finds it. torchgpipe subtracts
the fastest layer's time from all times first and loses that promise; here they stay as they are.
"""

import numpy as np

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.exact_integers import integers
from hpc_lpm.planning.planners.deepspeed import uniform_cuts


def greedy_cuts(model: CostModel) -> tuple[int, ...]:
    """Return cuts whose slowest and fastest stages differ by at most the slowest layer's time.

    Starts from `uniform`. While the difference is larger, the nearest of the shortest stages (of
    two as near the earlier) takes a layer from its neighbour on the side of the longest stage (of
    several the first), until that one has given a layer; then the longest is chosen anew.
    """
    # Every layer counts 1 / (L + 1) of a unit more: no stage is left without a layer then, and as
    # none holds more than L of them, it decides nothing else but ties.
    scale = model.layers + 1
    times = [scale * time + number for number, time in enumerate(model.layer_time_sums())]
    sums = integers(times, times[-1])
    allowed = np.diff(sums).max()
    cuts = np.array(uniform_cuts(model))
    stages = np.diff(sums[cuts])
    while True:
        longest = int(stages.argmax())
        giver = -1
        while giver != longest:
            if stages[longest] - stages.min() <= allowed:
                return tuple(cuts.tolist())
            shortest = np.flatnonzero(stages == stages.min())
            taker = int(shortest[np.abs(shortest - longest).argmin()])
            giver = taker + (1 if taker < longest else -1)
            if taker < longest:
                moved = cuts[giver]
                cuts[giver] += 1
            else:
                cuts[taker] -= 1
                moved = cuts[taker]
            time = sums[moved + 1] - sums[moved]
            stages[giver] -= time
            stages[taker] += time
