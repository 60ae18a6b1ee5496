"""What data parallelism is predicted to do: the whole model on every device, gradients averaged.

Of a step's M micro-batches each of R ranks trains M / R, one after the other. Gradients are summed
over the ranks in a ring (`ring_all_reduce_seconds`), in buckets, each as soon as the backward pass
of the last micro-batch has computed it (Li et al., PyTorch Distributed, VLDB 2020). What the sums
take longer than that pass adds to the step. What adds up the buckets is taken to cost the ranks'
processors nothing, and so is the update of the weights.
"""

from collections.abc import Sequence
from fractions import Fraction

from hpc_lpm.errors import InputError
from hpc_lpm.planning.forecast.case import Case, divided_batch
from hpc_lpm.planning.forecast.forecast import Forecast
from hpc_lpm.planning.memory import whole_model_memory_bytes
from hpc_lpm.planning.stage_times import ring_all_reduce_seconds
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

WAY = "data parallelism"


def forecast_data_parallel(case: Case, *, bucket_bytes: int) -> list[Forecast]:
    """Return what data parallelism does at every profiled micro-batch that divides, best first.

    Args:
        case: what is trained, on what.
        bucket_bytes: the gradients that are summed at a time; 0 for those of each layer alone.

    Raises:
        InputError: if no micro-batch divides among the ranks, or the model does not fit; the
            sentence says why.
    """
    found = [
        _forecast(case, profile, micro_batches, bucket_bytes)
        for profile, micro_batches in divided_batch(case, case.devices)
    ]
    return sorted(fitting(case, found), key=lambda forecast: forecast.merit)


def fitting(
    case: Case, found: Sequence[Forecast], why: str = ", since each holds the whole model"
) -> list[Forecast]:
    """Return the forecasts within the memory limit; `why` says what takes the memory.

    Raises:
        InputError: if there is none.
    """
    limit = case.memory_limit
    within = [each for each in found if limit is None or each.memory_bytes <= limit]
    if not within:
        raise InputError(
            f"it needs {min(each.memory_bytes for each in found):,} bytes on a device{why}, above "
            f"the limit of {limit:,}"
        )
    return within


def exposed_all_reduce_seconds(
    layers: Sequence[LayerProfile],
    ranks: int,
    link: LinkProfile,
    bucket_bytes: int,
    *,
    overlap: bool,
) -> Fraction:
    """Return by how much the sums of gradients outlast the last backward pass of a step.

    Args:
        layers: of the whole model, in order.
        ranks: R.
        link: between neighbours of the ring.
        bucket_bytes: gradients of layers are gathered from the last one on until they are as many.
        overlap: whether sums run while the backward pass does; else all begin behind it.
    """
    now = linked = Fraction(0)
    gathered = 0
    for number, layer in enumerate(reversed(layers), start=1):
        now += Fraction(layer.backward_seconds)
        gathered += layer.parameter_bytes
        if number == len(layers) or (overlap and gathered >= bucket_bytes):
            linked = max(linked, now) + ring_all_reduce_seconds(gathered, ranks, link)
            gathered = 0
    return linked - now


def _forecast(case: Case, profile: Profile, micro_batches: int, bucket_bytes: int) -> Forecast:
    layers, ranks = profile.layers, case.devices
    wired, _ = case.wired(profile, 1)
    compute = compute_seconds(profile) * (micro_batches // ranks)
    exposed = exposed_all_reduce_seconds(
        layers, ranks, wired.link, bucket_bytes, overlap=case.overlap
    )
    bound = "the compute of the whole model on every device"
    if exposed:
        bound += f" and {float(exposed) * 1e3:.3f} ms of all-reduce behind it"
    return Forecast(
        way=WAY,
        stages=1,
        replicas=ranks,
        micro_batches=micro_batches,
        micro_batch=profile.micro_batch,
        step_seconds=compute + exposed,
        bound=bound,
        memory_bytes=whole_model_memory_bytes(profile, case.options.optimizer),
        sent_bytes=2 * (ranks - 1) * sum(layer.parameter_bytes for layer in layers),
        samples=case.batch_size,
        step_on=lambda other: (
            _forecast(
                other, other.profile_at(profile.micro_batch), micro_batches, bucket_bytes
            ).step_seconds
        ),
    )


def compute_seconds(profile: Profile) -> Fraction:
    """Return the seconds of both passes of a micro-batch through the whole model."""
    return sum(
        (
            Fraction(layer.forward_seconds) + Fraction(layer.backward_seconds)
            for layer in profile.layers
        ),
        Fraction(0),
    )
