"""Least values in windows of positions, of those positions alone whose rank is below a bound."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.planning.exact_integers import Integers

_PAIRS_AT_ONCE = 2**16


def least_in_windows(
    values: Integers, begins: NDArray[np.int64], ends: NDArray[np.int64], none: int
) -> Integers:
    """Return the least of values[begin:end] for every window, `none` where it is empty.

    From a table of the least of 2^p neighbours, of which two cover any window (Bender and
    Farach-Colton 2000): O((n + q) log n) for n values and q windows.
    """
    lengths = ends - begins
    result = np.full(len(lengths), none, dtype=values.dtype)
    table = values
    width = 1
    longest = int(lengths.max(initial=0))
    while width <= longest:
        chosen = np.flatnonzero((lengths >= width) & (lengths < 2 * width))
        left = table[begins[chosen]]
        right = table[ends[chosen] - width]
        result[chosen] = np.minimum(left, right)
        table = np.minimum(table[:-width], table[width:])
        width *= 2
    return result


@dataclass(frozen=True)
class Queries:
    """Each asks for positions from `begins` to before `ends` whose rank is below `bounds`."""

    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    bounds: NDArray[np.int64]


def least_below(
    values: Integers, ranks: NDArray[np.int64], queries: Queries, none: int
) -> Integers:
    """Return for every query the least of values[p], begins <= p < ends and ranks[p] < bounds.

    Ranks that nearly grow with the position, as the times of a chain do, are all below the bound
    up to some position and all beyond it from another one on; only between the two is each looked
    at. Where that is too much, a merge sort tree does it in O(n log^2 n) for n queries of n
    positions: windows fall into blocks of 1, 2, 4, ... positions, each sorted by rank with the
    least value up to every rank (Bentley's decomposable searching).

    Args:
        values: of n positions.
        ranks: of the positions, a permutation of 0 to n - 1.
        queries: of bounds from 0 to n.
        none: the answer where no position is left.
    """
    surely_below = np.searchsorted(np.maximum.accumulate(ranks), queries.bounds)
    maybe_below = np.searchsorted(np.minimum.accumulate(ranks[::-1])[::-1], queries.bounds)
    result = least_in_windows(values, queries.begins, np.minimum(queries.ends, surely_below), none)
    unsure = replace(
        queries,
        begins=np.maximum(queries.begins, surely_below),
        ends=np.minimum(queries.ends, maybe_below),
    )
    widest = int((unsure.ends - unsure.begins).max(initial=0))
    if widest <= 0:
        return result
    few = widest * len(unsure.begins) <= _PAIRS_AT_ONCE
    between = _least_of_all_pairs if few else _least_by_blocks
    least: Integers = np.minimum(result, between(values, ranks, unsure, none))
    return least


def _least_of_all_pairs(
    values: Integers, ranks: NDArray[np.int64], queries: Queries, none: int
) -> Integers:
    begins, ends = queries.begins, queries.ends
    positions = begins[:, None] + np.arange(int((ends - begins).max()))
    inside = positions < ends[:, None]
    positions = np.minimum(positions, len(values) - 1)
    possible = inside & (ranks[positions] < queries.bounds[:, None])
    least: Integers = np.where(possible, values[positions], none).min(axis=1)
    return least


def _least_by_blocks(
    values: Integers, ranks: NDArray[np.int64], queries: Queries, none: int
) -> Integers:
    count = len(values)
    padded = 1 << max(count - 1, 0).bit_length()
    # Padding has a rank that no bound lets in.
    sorted_ranks = np.full(padded, count, dtype=np.int64)
    sorted_ranks[:count] = ranks
    by_rank = np.full(count + 1, none, dtype=values.dtype)
    by_rank[ranks] = values
    result = np.full(len(queries.begins), none, dtype=values.dtype)
    left, right = queries.begins.copy(), np.maximum(queries.begins, queries.ends)
    width = 1
    while (left < right).any():
        blocks = np.sort(sorted_ranks.reshape(-1, width), axis=1)
        sorted_ranks = blocks.ravel()
        keys = (blocks + np.arange(len(blocks))[:, None] * (count + 1)).ravel()
        least = np.minimum.accumulate(by_rank[blocks], axis=1).ravel()
        odd_left = np.flatnonzero((left < right) & (left % 2 == 1))
        odd_right = np.flatnonzero((left < right) & (right % 2 == 1))
        asking = np.concatenate([odd_left, odd_right])
        block = np.concatenate([left[odd_left], right[odd_right] - 1])
        left[odd_left] += 1
        right[odd_right] -= 1
        until = np.searchsorted(keys, block * (count + 1) + queries.bounds[asking])
        some = until > block * width
        # One query may ask for two blocks.
        np.minimum.at(result, asking[some], least[until[some] - 1])
        left //= 2
        right //= 2
        width *= 2
    return result
