"""The Pareto front of all plans: what a longer period buys in bytes and memory.

A plan is on the front if no other plan has a period, boundary bytes and a memory of the fullest
stage that are all as small and one of them smaller. The front is exact and holds every such triple
once.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import isfinite

import numpy as np

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.pareto.partial_plans import PartialPlans, partial_plans
from hpc_lpm.planning.pareto.stage_ranks import StageRanks, rank_stages
from hpc_lpm.planning.planners.lpm import optimal_cuts


@dataclass(frozen=True)
class ParetoPoint:
    """One triple of the front, and the lexicographically smallest K+1 cut positions that have it.

    `memory_bytes` is the memory of the fullest stage.
    """

    period: Fraction
    boundary_bytes: int
    memory_bytes: int
    cuts: tuple[int, ...]


@dataclass(frozen=True)
class ParetoFront:
    """The points by ascending period, then bytes; `chosen` is the number of the planner's point."""

    points: tuple[ParetoPoint, ...]
    chosen: int


def pareto_front(model: CostModel, within: float | None = None) -> ParetoFront:
    """Return the front of all plans within the memory limits.

    With `within`, of those whose period is at most (1 + within) times the least. The chosen point
    has the least boundary bytes of those within the tolerance, and of these the least memory.

    Raises:
        InputError: if no plan is within the memory limits, `within` is less than the tolerance, or
            the front is too wide to be found.
    """
    tolerance = model.options.tolerance
    if within is not None and not (within >= tolerance and isfinite(within)):
        raise InputError(
            f"--pareto-within is {within}, accepted is a finite number not below the "
            f"--tolerance of {tolerance}."
        )
    least = _least_period(model)
    longest = None if within is None else (1 + Fraction(within)) * least
    ranks = rank_stages(model, longest)
    plans = partial_plans(model, ranks, longest)
    points = tuple(
        ParetoPoint(
            ranks.period(period),
            int(sent),
            int(ranks.memory_bytes[memory]),
            _smallest_cuts(model, ranks, plans, (period, memory, sent)),
        )
        for period, memory, sent in zip(
            plans[0].period.tolist(),
            plans[0].memory.tolist(),
            plans[0].sent_bytes.tolist(),
            strict=True,
        )
    )
    return ParetoFront(points, _chosen(points, (1 + Fraction(tolerance)) * least))


def _least_period(model: CostModel) -> Fraction:
    options = model.options.model_copy(update={"tolerance": 0.0})
    return model.period(optimal_cuts(CostModel(model.profile, model.stages, options)))


def _chosen(points: tuple[ParetoPoint, ...], longest: Fraction) -> int:
    return min(
        (number for number, point in enumerate(points) if point.period <= longest),
        key=lambda number: (points[number].boundary_bytes, points[number].memory_bytes),
    )


def _smallest_cuts(
    model: CostModel, ranks: StageRanks, plans: list[PartialPlans], triple: tuple[int, int, int]
) -> tuple[int, ...]:
    """Return the lexicographically smallest cuts of a non-dominated (period, memory, sent bytes).

    A cut can be gone through if one of its labels stays within the triple: where a way behind it
    that was dropped does, the one that dominates it does too.
    """
    period, memory, sent = triple
    cuts = [0]
    for stage, behind in zip(ranks.stages, plans[1:], strict=True):
        sent -= model.cut_bytes[cuts[-1]]
        row = cuts[-1] - stage.starts.start
        stops = np.flatnonzero((stage.period[row] <= period) & (stage.memory[row] <= memory))
        ways = behind.of_cuts(stage.stops[stops[0]], stage.stops[stops[-1]])
        within = np.zeros(len(stage.stops), dtype=np.bool_)
        within[stops] = True
        goes_on = (
            within[ways.cut - stage.stops.start]
            & (ways.period <= period)
            & (ways.memory <= memory)
            & (ways.sent_bytes <= sent)
        )
        cuts.append(int(ways.cut[np.argmax(goes_on)]))
    return tuple(cuts)
