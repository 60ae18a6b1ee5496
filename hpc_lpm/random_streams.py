"""Random numbers that depend on where they are drawn, not on what was drawn before.

Layers draw from the generators of torch (on the host and on GPUs), of Python and of NumPy. Each of
these is set before a layer runs.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

NUMPY_SEEDS = 2**32
"""NumPy takes seeds below this."""
TORCH_SEEDS = 2**63
"""Torch takes seeds below this as they are."""


def set_generators(key: tuple[int, ...], device: torch.device | None = None) -> None:
    """Set the generators of torch, Python and NumPy to a state that depends on `key` alone.

    Args:
        key: what the random numbers are for, such as (seed, layer, micro-batch).
        device: the GPU whose generator is set as well; None or the host for no GPU.
    """
    seed = set_generators_of_torch(key, device)
    random.seed(seed)
    np.random.seed(seed % NUMPY_SEEDS)


def set_generators_of_torch(key: tuple[int, ...], device: torch.device | None = None) -> int:
    """Set torch's generators as `set_generators` does, and return the seed."""
    seed = seed_of(key)
    # Not torch.manual_seed, which seeds every accelerator and takes ten times as long.
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    return seed


def seed_of(key: tuple[int, ...]) -> int:
    """Return a seed of 63 bits; neighbouring keys give unrelated ones."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def torch_seed(seed: int, place: int) -> int:
    """Return the seed of torch for one of the places, such as layers or epochs, of a run's seed.

    The odd multiplier keeps pairs of seed and place apart for any realistic number of places.
    Where the product exceeds what torch takes, the pair is hashed instead.
    """
    product = seed * 1_000_003 + place
    return product if product < TORCH_SEEDS else seed_of((seed, place))


def state_of_torch(device: torch.device) -> object:
    """Return the state of torch's generators, to compare it with another."""
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0)
    return torch.get_rng_state().numpy().tobytes(), on_device.cpu().numpy().tobytes()


def state_elsewhere() -> object:
    """Return the state of the generators of Python and NumPy, to compare it with another."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), kind, np.asarray(keys).tobytes(), rest


class UntouchedGenerators:
    """Tells whether anybody has drawn from some generators since it was made.

    It sets them to a state of which the first numbers are known: those of Python and NumPy, and
    torch's unless `elsewhere_alone`.
    """

    _SEED = 1
    _FIRST = (random.Random(_SEED).random(), float(np.random.RandomState(_SEED).random_sample()))
    _FIRST_OF_TORCH = float(torch.rand((), generator=torch.Generator().manual_seed(_SEED)))

    def __init__(self, device: torch.device, *, elsewhere_alone: bool) -> None:
        self._device = device
        self._elsewhere_alone = elsewhere_alone
        random.seed(self._SEED)
        np.random.seed(self._SEED)
        if elsewhere_alone:
            return
        torch.default_generator.manual_seed(self._SEED)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(self._SEED)

    def drawn_from(self) -> bool:
        """Tell if the next numbers are others than the first ones; asking draws them."""
        if (random.random(), np.random.random_sample()) != self._FIRST:
            return True
        if self._elsewhere_alone:
            return False
        on_device = self._device.type == "cuda" and bool(
            torch.cuda.default_generators[self._device.index or 0].get_offset()
        )
        return on_device or float(torch.rand(())) != self._FIRST_OF_TORCH


@contextmanager
def generators_kept(device: torch.device | None = None) -> Iterator[None]:
    """Leave all generators in the state in which they were found."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [device] if device is not None and device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def seeded_generators(*key: int) -> Iterator[None]:
    """Set the generators as `set_generators` does, and restore them at the end."""
    with generators_kept():
        set_generators(key)
        yield
