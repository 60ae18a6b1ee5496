"""What each stage of a plan takes for one micro-batch and one optimizer step, exactly.

That includes averaging the gradients of a step over the replicas of the stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.profile_file import LinkProfile


@dataclass(frozen=True)
class StageTimes:
    """Times of one stage in seconds.

    Attributes:
        forward: of the forward pass of one micro-batch.
        backward: of its backward pass.
        before: of one message over the boundary to the previous stage, 0 where there is none.
        after: of one message over the boundary to the next stage, 0 where there is none.
        replayed: how many micro-batches of a step run their forward a second time.
        all_reduce: of averaging the gradients of a step over the replicas.
    """

    forward: Fraction
    backward: Fraction
    before: Fraction
    after: Fraction
    replayed: int
    all_reduce: Fraction


def stage_times(model: CostModel, cuts: Sequence[int]) -> list[StageTimes]:
    """Return the times of all stages of a plan; the all-reduce runs over the profile's link."""
    options, link = model.options, model.profile.link
    result = []
    for stage, (start, stop) in enumerate(pairwise(cuts)):
        factors = model.factors[stage]
        seconds = factors.seconds_per_work * options.micro_batches
        gradients = model.parameter_sums[stop] - model.parameter_sums[start]
        result.append(
            StageTimes(
                forward=seconds * (model.forward_sums[stop] - model.forward_sums[start]),
                backward=seconds * (model.backward_sums[stop] - model.backward_sums[start]),
                before=model.transfer_seconds(stage - 1, start),
                after=model.transfer_seconds(stage, stop),
                replayed=factors.forward - factors.backward,
                all_reduce=ring_all_reduce_seconds(gradients, options.replicas, link),
            )
        )
    return result


def ring_all_reduce_seconds(size_bytes: int, replicas: int, link: LinkProfile) -> Fraction:
    """Return the seconds that `replicas` need to sum `size_bytes` bytes each, in a ring of links.

    2 (R - 1) latency + 2 (R - 1) / R x bytes / bandwidth: in R - 1 rounds of reduce-scatter and as
    many of all-gather everyone sends one R-th of the bytes to the next (Thakur, Rabenseifner and
    Gropp, 2005); no algorithm sends fewer bytes (Patarasuk and Yuan, 2009). It is
    assumed that the additions hide behind the messages, and that a stage without parameters needs
    no all-reduce.
    """
    if size_bytes == 0:
        return Fraction(0)
    rounds = 2 * (replicas - 1)
    message = Fraction(size_bytes, replicas) / Fraction(link.bandwidth_bytes_per_second)
    return rounds * (Fraction(link.latency_seconds) + message)
