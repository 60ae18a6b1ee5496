"""Planner `lpm`: the optimal merging of layers into stages.

In this order: (1) least period P*; (2) least boundary bytes among plans with a period of at most
(1 + tolerance) P*; (3) least memory of the fullest stage; (4) smallest cut positions. Exact: trying
all partitions gives the same answer.
"""

from fractions import Fraction

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.search.alternatives import infeasible_memory
from hpc_lpm.planning.search.cheapest import Cheapest, cheapest_within
from hpc_lpm.planning.search.reach import Limits, first_step, least_relaxed_period

_FIRST_STEP = Fraction(1, 2**16)
_STEP_GROWTH = 4


def optimal_cuts(model: CostModel) -> tuple[int, ...]:
    """Return the K+1 cut positions of the optimal plan.

    Parametric search: the least period is bracketed between a period known to be too short and the
    period of a plan that was found. A failed probe also tells up to which period nothing changes,
    so the bracket closes on the exact value.

    Raises:
        InputError: if no plan is within the memory limits.
    """
    if any(factors.memory_limit_bytes is not None for factors in model.factors):
        unhurried = cheapest_within(model, Limits(period=None))
        if unhurried.cuts is None:
            raise infeasible_memory(model)
    longest = (1 + Fraction(model.options.tolerance)) * _least_period(model)
    found = cheapest_within(model, Limits(longest))
    if not found.unique and found.search is not None:
        memory = found.search.least_memory_bytes()
        found = cheapest_within(model, Limits(longest, memory))
    return _cuts(found)


def _least_period(model: CostModel) -> Fraction:
    low = least_relaxed_period(model)
    step = first_step(model, low, _FIRST_STEP)
    probe = cheapest_within(model, Limits(low))
    # The relaxation is nearly always right or nearly right: feel upwards from it.
    while probe.cuts is None:
        low = _following(probe)
        step = max(step * _STEP_GROWTH, low * _FIRST_STEP)
        probe = cheapest_within(model, Limits(low + step))
    high = model.period(probe.cuts)
    while low < high:
        probe = cheapest_within(model, Limits((low + high) / 2))
        if probe.cuts is None:
            low = _following(probe)
        else:
            high = model.period(probe.cuts)
    return high


def _following(probe: Cheapest) -> Fraction:
    """Return the period up to which a failed probe has shown that there is no plan."""
    if probe.next_period is None:
        raise RuntimeError("no period allows a plan although one is within the memory limits")
    return probe.next_period


def _cuts(found: Cheapest) -> tuple[int, ...]:
    if found.cuts is None:
        raise RuntimeError("no plan at a period for which one was found before")
    return found.cuts
