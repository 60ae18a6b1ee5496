"""Random planning problems, and what a partition costs by the definitions alone, in Fractions."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from hypothesis import strategies as st

from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.profile_file import LayerProfile, Profile


@dataclass(frozen=True)
class Instance:
    profile: Profile
    stages: int
    options: PlanOptions


def price(instance, cuts):
    """Return period, boundary bytes and largest memory of a partition; None beyond a limit."""
    layers, link, options = instance.profile.layers, instance.profile.link, instance.options
    stages, steps = instance.stages, options.micro_batches
    overlap = link.overlap if options.overlap is None else options.overlap
    copies = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2}[options.optimizer]
    sends = [Fraction(0)]
    for boundary, cut in enumerate(cuts[1:-1]):
        sent = Fraction(layers[cut - 1].output_bytes)
        crossed = options.links[boundary] if options.links else link
        sends.append(
            Fraction(crossed.latency_seconds) + sent / Fraction(crossed.bandwidth_bytes_per_second)
        )
    sends.append(Fraction(0))
    periods, memories = [], []
    for number, (start, stop) in enumerate(pairwise(cuts)):
        delay = options.lead * (stages - 1 - number)
        seconds = Fraction(0)
        held = 0
        for layer in layers[start:stop]:
            repeated = Fraction(min(delay, steps), steps) if options.weights == "replay" else 0
            seconds += (1 + repeated) * Fraction(layer.forward_seconds)
            seconds += Fraction(layer.backward_seconds)
            versions = -(-delay // steps) if options.weights == "stash" else 0
            held += (2 + copies + versions) * layer.parameter_bytes
            held += (delay + 1) * layer.activation_bytes
        seconds /= Fraction(options.speeds[number]) if options.speeds else 1
        if overlap:
            periods += [seconds, sends[number], sends[number + 1]]
        else:
            periods.append(seconds + 2 * sends[number] + 2 * sends[number + 1])
        memories.append(held)
        limit = options.memory_limit
        limit = limit[number] if isinstance(limit, tuple) else limit
        if limit is not None and held > limit:
            return None
    return max(periods), sum(layers[cut - 1].output_bytes for cut in cuts[1:-1]), max(memories)


def layers_of(seconds, size):
    return st.builds(
        LayerProfile,
        name=st.just("layer"),
        forward_seconds=seconds,
        backward_seconds=seconds,
        output_bytes=size,
        parameter_bytes=size,
        activation_bytes=size,
    )
