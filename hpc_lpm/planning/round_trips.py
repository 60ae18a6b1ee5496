"""What running ahead can hide: the period of a schedule with messages that take their time.

Under a schedule that alternates, stage k always runs d_k forwards ahead. Follow a micro-batch from
its forward at stage k to stage j; the backward that stage j runs next is that of the micro-batch
d_j before; follow that back to stage k, whose next forward is that of the micro-batch d_k + 1
later. So once around the stages k to j the schedule is d_k - d_j + 1 micro-batches further, and

    P >= (T_k + ... + T_j + 2 (X_k + ... + X_{j-1})) / (d_k - d_j + 1)    for all k <= j,

the mean of a cycle in the sense of Baccelli et al., Synchronization and Linearity (1992). For k = j
that is the compute of a stage. With lead r, d_k - d_j is r (j - k), and messages no longer than the
period are hidden by r = 3 at the latest, for then the bound is at most that of the longest stage or
message.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.memory import is_buffer_enough
from hpc_lpm.planning.options import PlanOptions

ENOUGH_LEAD = 3


def round_trip_period(model: CostModel, cuts: Sequence[int]) -> Fraction:
    """Return the longest mean of a round trip over any stages, seconds per micro-batch; O(K^2)."""
    bounds = list(enumerate(pairwise(cuts)))
    compute = [model.compute_seconds(stage, start, stop) for stage, (start, stop) in bounds]
    transfer = [2 * model.transfer_seconds(stage, stop) for stage, (_, stop) in bounds]
    done = [Fraction(0), *accumulate(compute)]
    sent = [Fraction(0), *accumulate(transfer)]
    return max(
        (done[last + 1] - done[first] + sent[last] - sent[first])
        / (model.ahead[first] - model.ahead[last] + 1)
        for first in range(model.stages)
        for last in range(first, model.stages)
    )


def sufficient_lead(model: CostModel, cuts: Sequence[int]) -> int | None:
    """Return the least lead, from the plan's own upwards, with which round trips are hidden.

    Hidden means that, up to the plan's tolerance, they take no longer than the slowest stage or
    message does with that lead (which, where weights are replayed, computes more). None where the
    weight policy keeps fewer versions than so large a lead uses.
    """
    lead, options = model.options.lead, model.options
    while is_buffer_enough(model.schedule, model.stages, options):
        if lead >= ENOUGH_LEAD or _are_hidden(model, cuts, options):
            return lead
        lead += 1
        options = model.options.model_copy(update={"lead": lead})
    return None


def _are_hidden(model: CostModel, cuts: Sequence[int], options: PlanOptions) -> bool:
    """Tell if round trips take no longer than what is slowest with these options."""
    candidate = CostModel(model.profile, model.stages, options)
    longest = (1 + Fraction(options.tolerance)) * candidate.period(cuts)
    return round_trip_period(candidate, cuts) <= longest
