"""What sharded data parallelism is predicted to do: every rank keeps a share of all weights.

As with data parallelism each of R ranks trains M / R micro-batches. Each holds one R-th of the
weights and of the optimizer's state, and gathers the weights of a layer for its forward and its
backward pass, while the layer before is computed (Rajbhandari et al., ZeRO, SC 2020; Zhao et al.,
PyTorch FSDP, VLDB 2023). The sums of a step's gradients are scattered once, during the last
backward pass. Gathering and scattering send half of what a ring's all-reduce sends, each.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from hpc_lpm.planning.forecast.case import Case, divided_batch
from hpc_lpm.planning.forecast.data_parallel import fitting
from hpc_lpm.planning.forecast.forecast import Forecast
from hpc_lpm.planning.memory import whole_model_memory_bytes
from hpc_lpm.planning.stage_times import ring_all_reduce_seconds
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

WAY = "sharded data parallelism"
_WHY = " for its share, whole gradients and activations"


def forecast_sharded(case: Case) -> list[Forecast]:
    """Return what it does at every profiled micro-batch that divides among the ranks, best first.

    Raises:
        InputError: if no micro-batch does, or not even the shares fit; the sentence says why.
    """
    found = [
        _forecast(case, profile, micro_batches)
        for profile, micro_batches in divided_batch(case, case.devices)
    ]
    return sorted(fitting(case, found, why=_WHY), key=lambda forecast: forecast.merit)


def pass_seconds(
    compute: Sequence[Fraction], gathers: Sequence[Fraction], *, overlap: bool
) -> Fraction:
    """Return what a pass takes whose layers are gathered one after the other.

    Args:
        compute: seconds of each layer, in the order of the pass.
        gathers: seconds in which its weights are gathered, from when the layer before begins on.
        overlap: whether that goes on while the layer before is computed.
    """
    if not overlap:
        return sum((*compute, *gathers), Fraction(0))
    now, gathered = Fraction(0), Fraction(0)
    for seconds, gather in zip(compute, gathers, strict=True):
        gathered += gather
        begins = max(now, gathered)
        # The weights of the next layer are asked for now.
        now, gathered = begins + seconds, begins
    return now


def sharded_memory_bytes(case: Case, profile: Profile) -> int:
    """Return what a rank holds: its share, whole gradients, activations, two layers' weights.

    The gradients are whole, because they are summed over the micro-batches of a step before they
    are scattered; the two layers are the one that is computed and the next, the largest such pair.
    """
    layers = profile.layers
    parameters = sum(layer.parameter_bytes for layer in layers)
    activations = sum(layer.activation_bytes for layer in layers)
    whole = whole_model_memory_bytes(profile, case.options.optimizer)
    kept = whole - activations - parameters
    pairs = [one.parameter_bytes + two.parameter_bytes for one, two in pairwise(layers)]
    gathered = max(pairs, default=parameters)
    return -(-kept // case.devices) + parameters + activations + gathered


def _forecast(case: Case, profile: Profile, micro_batches: int) -> Forecast:
    layers, ranks = profile.layers, case.devices
    wired, _ = case.wired(profile, 1)
    parts = _half_rings(layers, ranks, wired.link)
    forward = pass_seconds(
        [Fraction(layer.forward_seconds) for layer in layers], parts, overlap=case.overlap
    )
    computed_backward = [Fraction(layer.backward_seconds) for layer in reversed(layers)]
    backward = pass_seconds(computed_backward, parts[::-1], overlap=case.overlap)
    # The last backward pass shares the link with the sums, of which the first layer's is left.
    scattered = sum(parts, Fraction(0))
    last = max(backward, 2 * scattered - parts[0]) + parts[0]
    if not case.overlap:
        last = backward + scattered
    count = micro_batches // ranks
    seconds = count * forward + (count - 1) * backward + last
    parameters = sum(layer.parameter_bytes for layer in layers)
    return Forecast(
        way=WAY,
        stages=1,
        replicas=ranks,
        micro_batches=micro_batches,
        micro_batch=profile.micro_batch,
        step_seconds=seconds,
        bound=f"the compute of the whole model on every device and {2 * count} gathers of its "
        "weights",
        memory_bytes=sharded_memory_bytes(case, profile),
        sent_bytes=(2 * count + 1) * (ranks - 1) * parameters,
        samples=case.batch_size,
        step_on=lambda other: (
            _forecast(other, other.profile_at(profile.micro_batch), micro_batches).step_seconds
        ),
    )


def _half_rings(layers: Sequence[LayerProfile], ranks: int, link: LinkProfile) -> list[Fraction]:
    return [ring_all_reduce_seconds(layer.parameter_bytes, ranks, link) / 2 for layer in layers]
