"""Arrays of exact integers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[Any]
"""Exact integers: int64, or Python's own where they may grow beyond it."""

_LARGEST_MACHINE_INTEGER = 2**61


def integers(values: Sequence[int], largest: int) -> Integers:
    """Return an array of exact integers: of the machine's where `largest` fits, else Python's."""
    fits = largest < _LARGEST_MACHINE_INTEGER
    return np.array(values, dtype=np.int64 if fits else object)
