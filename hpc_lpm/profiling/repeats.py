"""Repeated blocks of layers that do the same work, of which only some are timed.

A run is a stretch of layers whose keys (`Layer.same_as`) repeat with a period, such as the blocks
of a transformer. The chain without some of the repetitions is a model too, since what one
repetition returns is what any other one takes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

FEWEST_KEPT = 3
"""Repetitions that are always timed: of one or two, a disturbance would count too much."""

COLD_BYTES = 2**27
"""Bytes of parameters in the repetitions that are timed: more than caches hold, as in training."""


@dataclass(frozen=True)
class Run:
    """`count` repetitions of `period` layers each, from layer `start` on."""

    start: int
    period: int
    count: int

    @property
    def stop(self) -> int:
        """The layer behind the last one of the run."""
        return self.start + self.period * self.count


def find_runs(keys: Sequence[str]) -> list[Run]:
    """Return the runs of more than `FEWEST_KEPT` repetitions, in order and without overlap.

    The first layer and the last belong to none: the one computes no gradient of its inputs, the
    other computes the loss. At each layer the run that covers most layers counts, of equally long
    ones that of the shortest period.
    """
    runs: list[Run] = []
    start, last = 1, len(keys) - 1
    while start < last:
        found = _longest_run(keys, start, last)
        if found is None:
            start += 1
        else:
            runs.append(found)
            start = found.stop
    return runs


def _longest_run(keys: Sequence[str], start: int, last: int) -> Run | None:
    best: Run | None = None
    for period in range(1, (last - start) // (FEWEST_KEPT + 1) + 1):
        if not keys[start + period - 1]:
            break
        stop = start + period
        while stop < last and keys[stop] and keys[stop] == keys[stop - period]:
            stop += 1
        run = Run(start, period, (stop - start) // period)
        if run.count > FEWEST_KEPT and (best is None or run.stop > best.stop):
            best = run
    return best


@dataclass(frozen=True)
class Shortened:
    """Which layers are kept, ascending, and for every layer those whose times it is given.

    `timed_by[index]` are the kept layers that stand in the same place of a repetition, the layer
    itself where it is in no run; `sized_by[index]` is the one whose bytes a dropped layer is given,
    a kept layer itself.
    """

    kept: tuple[int, ...]
    timed_by: tuple[tuple[int, ...], ...]
    sized_by: tuple[int, ...]


def everything(layers: int) -> Shortened:
    """Return that all layers are kept, each timed by itself."""
    return Shortened(
        tuple(range(layers)), tuple((index,) for index in range(layers)), tuple(range(layers))
    )


def shorten(keys: Sequence[str], parameter_bytes: Callable[[int], int]) -> Shortened:
    """Return which layers to time: of each run the first and last repetitions, half of each.

    So many are kept that their parameters take `COLD_BYTES`, and at least `FEWEST_KEPT`; of a run
    that holds less, all are kept and each layer is timed by itself. `parameter_bytes` tells those
    of a layer and is asked for one repetition of each run.
    """
    layers = range(len(keys))
    timed_by = [(index,) for index in layers]
    sized_by = list(layers)
    dropped: set[int] = set()
    for run in find_runs(keys):
        one = sum(parameter_bytes(run.start + place) for place in range(run.period))
        needed = ceil(COLD_BYTES / one) if one else run.count
        kept = max(FEWEST_KEPT, needed)
        if kept >= run.count:
            continue
        first = ceil(kept / 2)
        repetitions = [*range(first), *range(run.count - (kept - first), run.count)]
        for number in range(run.count):
            for place in range(run.period):
                index = run.start + number * run.period + place
                timed_by[index] = tuple(
                    run.start + each * run.period + place for each in repetitions
                )
                if number not in repetitions:
                    dropped.add(index)
                    sized_by[index] = run.start + (first - 1) * run.period + place
    return Shortened(
        tuple(index for index in layers if index not in dropped),
        tuple(timed_by),
        tuple(sized_by),
    )
