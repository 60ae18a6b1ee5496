"""Least values in windows of positions, of those positions alone whose rank is below a bound."""

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.planning.integers import Integers

_DENSE_PAIRS = 2**14


def least_below(
    values: Integers,
    ranks: NDArray[np.int64],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    bounds: NDArray[np.int64],
    none: int,
) -> Integers:
    """Return for every query the least of values[p], begins <= p < ends and ranks[p] < bounds.

    Small tables of all pairs are looked at whole, larger ones through a merge sort tree: windows
    fall into blocks of 1, 2, 4, ... positions, each sorted by rank with the least value up to every
    rank, so that n positions and n queries cost O(n log^2 n) (Bentley's decomposable searching).

    Args:
        values: of n positions.
        ranks: of the positions, a permutation of 0 to n - 1.
        begins: first positions of the queries.
        ends: the positions behind the last ones.
        bounds: of the ranks, 0 to n.
        none: the answer where no position is left.
    """
    if len(values) * len(begins) <= _DENSE_PAIRS:
        return _least_of_all_pairs(values, ranks, begins, ends, bounds, none)
    return _least_by_blocks(values, ranks, begins, ends, bounds, none)


def _least_of_all_pairs(
    values: Integers,
    ranks: NDArray[np.int64],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    bounds: NDArray[np.int64],
    none: int,
) -> Integers:
    positions = np.arange(len(values))
    possible = (
        (ranks < bounds[:, None]) & (positions >= begins[:, None]) & (positions < ends[:, None])
    )
    least: Integers = np.where(possible, values, none).min(axis=1, initial=none)
    return least


def _least_by_blocks(
    values: Integers,
    ranks: NDArray[np.int64],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    bounds: NDArray[np.int64],
    none: int,
) -> Integers:
    count = len(values)
    padded = 1 << max(count - 1, 0).bit_length()
    # Padding has a rank that no bound lets in.
    sorted_ranks = np.full(padded, count, dtype=np.int64)
    sorted_ranks[:count] = ranks
    by_rank = np.full(count + 1, none, dtype=values.dtype)
    by_rank[ranks] = values
    result = np.full(len(begins), none, dtype=values.dtype)
    left, right = begins.astype(np.int64), np.maximum(begins, ends).astype(np.int64)
    width = 1
    while True:
        queries = np.flatnonzero(left < right)
        if not len(queries):
            return result
        blocks = sorted_ranks.reshape(-1, width)
        keys = (blocks + np.arange(len(blocks))[:, None] * (count + 1)).ravel()
        least = np.minimum.accumulate(by_rank[blocks], axis=1).ravel()

        def ask(asking: NDArray[np.intp], block: NDArray[np.int64]) -> None:
            """Take the least of one block into the answers."""
            until = np.searchsorted(keys, block * (count + 1) + bounds[asking])
            some = until > block * width
            asking = asking[some]
            result[asking] = np.minimum(result[asking], least[until[some] - 1])

        odd = queries[left[queries] % 2 == 1]
        ask(odd, left[odd])
        left[odd] += 1
        odd = queries[right[queries] % 2 == 1]
        right[odd] -= 1
        ask(odd, right[odd])
        left //= 2
        right //= 2
        width *= 2
        if width <= padded:
            sorted_ranks = np.sort(sorted_ranks.reshape(-1, width), axis=1).ravel()
