"""The partitioners of a chain of layer times: our planners, DeepSpeed's and torchgpipe's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from benchmarks.planner_chains import TICKS_PER_SECOND, times_alone
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.planners.registry import planner_named
from hpc_lpm.profile_file import Profile


@dataclass(frozen=True)
class Problem:
    """Layer times in seconds, also as a profile in which nothing else has a cost."""

    seconds: list[float]
    stages: int
    profile: Profile


@dataclass(frozen=True)
class Contestant:
    """A partitioner under the name that the table gives it; `solve` returns K + 1 cuts."""

    name: str
    solve: Callable[[Problem], Sequence[int]]


def prepare(ticks: list[int], stages: int) -> Problem:
    """Return the problem of partitioning layers that take the given ticks."""
    seconds = [tick / TICKS_PER_SECOND for tick in ticks]
    return Problem(seconds, stages, times_alone(ticks))


def lpm(problem: Problem) -> Sequence[int]:
    """Solve with our planner, starting from the profile."""
    return _ours(problem, "lpm")


def pipedream(problem: Problem) -> Sequence[int]:
    """Solve with the plain dynamic programme, our planner of that name, from the profile."""
    return _ours(problem, "pipedream")


def deepspeed(problem: Problem) -> Sequence[int]:
    """Solve with the function behind DeepSpeed's partition methods `parameters` and `type`."""
    from deepspeed.runtime.utils import partition_balanced

    return [int(cut) for cut in partition_balanced(problem.seconds, problem.stages)]


def torchgpipe(problem: Problem) -> Sequence[int]:
    """Solve with the function behind torchgpipe's `balance_by_time`."""
    from torchgpipe.balance import blockpartition

    blocks = blockpartition.solve(problem.seconds, problem.stages)
    return [0, *accumulate(len(block) for block in blocks)]


OURS = Contestant("lpm", lpm)
RIVALS = (
    Contestant("DeepSpeed partition_balanced", deepspeed),
    Contestant("torchgpipe blockpartition", torchgpipe),
    Contestant("plain dynamic programme", pipedream),
)


def slowest_ticks(ticks: list[int], cuts: Sequence[int]) -> int:
    """Return the time of the slowest stage in ticks, which is exact.

    Raises:
        ValueError: if `cuts` do not partition the layers.
    """
    if cuts[0] != 0 or cuts[-1] != len(ticks) or list(cuts) != sorted(cuts):
        raise ValueError(f"{list(cuts)} are not the cuts of {len(ticks)} layers")
    return max(sum(ticks[start:stop]) for start, stop in pairwise(cuts))


def _ours(problem: Problem, planner: str) -> Sequence[int]:
    options = PlanOptions(tolerance=0, weights="live")
    model = CostModel(problem.profile, problem.stages, options)
    return planner_named(planner).cuts(model)
