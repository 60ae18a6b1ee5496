"""Makes the chains of layers that the planner's benchmark partitions, random and measured."""

from collections.abc import Iterable

import numpy as np

from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

TICKS_PER_SECOND = 2**30
"""A tick is about a nanosecond; with layer times in whole ticks, sums of doubles are exact."""

MEDIAN_SECONDS = 1e-3
SPREAD = 0.5
"""Standard deviation of the logarithm of the times and sizes of random layers."""

_SHAPES = 12
"""Groups of neighbouring layers with outputs of one size, as in networks, so that plans tie."""


def chain(length: int) -> Profile:
    """Return a profile of `length` layers with random times (in full precision) and sizes."""
    noise = np.random.default_rng(length)
    seconds = MEDIAN_SECONDS * noise.lognormal(sigma=SPREAD, size=(length, 2))
    sizes = (1e5 * noise.lognormal(sigma=SPREAD, size=(length, 2))).astype(int)
    layers = tuple(
        LayerProfile(
            name=f"layer{number}",
            forward_seconds=float(seconds[number, 0]),
            backward_seconds=float(seconds[number, 1]),
            output_bytes=2**20 >> number * _SHAPES // length % 6,
            parameter_bytes=int(sizes[number, 0]),
            activation_bytes=int(sizes[number, 1]),
        )
        for number in range(length)
    )
    return _profile(layers, latency_seconds=2e-6)


def times_alone(ticks: list[int]) -> Profile:
    """Return a profile in which nothing but the layers' times has a cost."""
    layers = tuple(
        LayerProfile(
            name=f"layer{number}",
            forward_seconds=tick / TICKS_PER_SECOND,
            backward_seconds=0,
            output_bytes=0,
            parameter_bytes=0,
            activation_bytes=0,
        )
        for number, tick in enumerate(ticks)
    )
    return _profile(layers, latency_seconds=0)


def random_ticks(layers: int, noise: np.random.Generator) -> list[int]:
    """Return random layer times in ticks."""
    return _ticks(MEDIAN_SECONDS * noise.lognormal(sigma=SPREAD, size=layers))


def measured_ticks(profile: Profile) -> list[int]:
    """Return the times of a profile's layers, forward and backward, in ticks."""
    return _ticks(layer.forward_seconds + layer.backward_seconds for layer in profile.layers)


def _profile(layers: tuple[LayerProfile, ...], latency_seconds: float) -> Profile:
    link = LinkProfile(latency_seconds=latency_seconds, bandwidth_bytes_per_second=1e9)
    return Profile(
        model="chain", micro_batch=1, device="cpu", dtype="float32", layers=layers, link=link
    )


def _ticks(seconds: Iterable[float]) -> list[int]:
    return [max(1, round(float(time) * TICKS_PER_SECOND)) for time in seconds]
