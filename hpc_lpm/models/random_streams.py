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

_NUMPY_SEEDS = 2**32


def set_generators(key: tuple[int, ...], device: torch.device | None = None) -> None:
    """Set the generators of torch, Python and NumPy to a state that depends on `key` alone.

    Args:
        key: what the random numbers are for, such as (seed, layer, micro-batch).
        device: the GPU whose generator is set as well; None or the host for no GPU.
    """
    # Hashed, since neighbouring keys must not give related numbers.
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, "little") >> 1
    # Not torch.manual_seed, which seeds every accelerator and takes ten times as long.
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % _NUMPY_SEEDS)
    if device is not None and device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


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
