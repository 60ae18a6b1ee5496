"""The parts of the delay benchmark, each a list of runs that takes at most two hours."""

import json
from collections.abc import Iterator

from benchmarks.delay.families import FAMILIES
from benchmarks.delay.runs import Run

NONE, AUTO = json.dumps({"recipe": "none"}), json.dumps({"recipe": "auto"})

TUNED: dict[tuple[str, int, str], float] = {}
"""The rate of a family, number of stages and corrections, as `rates` has found it at one seed."""

SHORT_LENGTHS = (1.0, 1.2, 1.5)


def rate_of(family: str, stages: int, corrections: str) -> float:
    """Return the tuned rate, by default the middle of those that a rate is tuned among."""
    rates = FAMILIES[family].rates
    return TUNED.get((family, stages, corrections), rates[len(rates) // 2])


def trainings(
    family: str,
    stages: int,
    micro_batches: int,
    corrections: str,
    lengths: tuple[float, ...],
    seeds: int,
) -> Iterator[Run]:
    """Yield the runs of one contestant at its tuned rate."""
    rate = rate_of(family, stages, corrections)
    for seed in range(seeds):
        for length in lengths:
            yield Run(family, stages, micro_batches, corrections, rate, length, seed)


def one_device(family: str, seeds: int) -> Iterator[Run]:
    """Yield the runs of one device, which no number of micro-batches changes but for rounding."""
    yield from trainings(family, 1, 4, NONE, (1.0,), seeds)


def short() -> Iterator[Run]:
    """Yield the runs of `make bench-delay`."""
    for family in ("gpt-adamw", "gpt-muon", "resnet20"):
        lengths = SHORT_LENGTHS if FAMILIES[family].lower_is_better else (1.0,)
        yield from one_device(family, 3)
        yield from trainings(family, 8, 4, NONE, lengths, 3)
        yield from trainings(family, 8, 4, AUTO, lengths, 3)


def rates() -> Iterator[Run]:
    """Yield runs at every rate, at one seed."""
    for name, family in FAMILIES.items():
        deepest = 16 if name.startswith("gpt8") else 8
        for rate in family.rates:
            yield Run(name, 1, 4, NONE, rate, 1.0, 0)
            for corrections in (NONE, AUTO):
                yield Run(name, deepest, 4, corrections, rate, 1.0, 0)


def depths() -> Iterator[Run]:
    """Yield runs over stages and micro-batches, at one seed."""
    for name in FAMILIES:
        for stages in (2, 4, 8, 16):
            if stages == 16 and name in ("gpt-adamw", "gpt-muon"):
                continue
            for micro_batches in (4, 8, 16):
                for corrections in (NONE, AUTO):
                    yield from trainings(name, stages, micro_batches, corrections, (1.0,), 1)


def targets() -> Iterator[Run]:
    """Yield the runs that tell how many steps a target takes, at five seeds."""
    for name, family in FAMILIES.items():
        lengths = (1.0, 1.1, 1.2, 1.35, 1.5) if family.lower_is_better else (1.0, 1.05)
        deepest = 16 if name.startswith("gpt8") else 8
        yield from one_device(name, 5)
        for corrections in (NONE, AUTO):
            yield from trainings(name, deepest, 4, corrections, lengths, 5)


PARTS = {"short": short, "rates": rates, "depths": depths, "targets": targets}
"""The parts by name; all but `short` are those of `make bench-delay-full`."""
