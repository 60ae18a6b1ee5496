"""The parts of the delay benchmark, each a list of runs that takes at most two hours."""

import json
from collections.abc import Iterator

from benchmarks.delay.families import FAMILIES
from benchmarks.delay.runs import Run
from hpc_lpm.prediction_rules import OF_SGD, SPECTRAIN
from hpc_lpm.recipes import RECIPES, recipe_for

NONE, AUTO = json.dumps({"recipe": "none"}), json.dumps({"recipe": "auto"})

SHORT_LENGTHS, LENGTHS = (1.0, 1.2, 1.5), (1.0, 1.2, 1.35, 1.5)
RIVALS_LENGTHS = (1.0, 1.5, 2.0)


def rate_of(family: str, stages: int) -> float:
    """Return the tuned rate of one device, or of a pipeline."""
    chosen = FAMILIES[family]
    return chosen.rate if stages == 1 else chosen.lagging_rate


def trainings(
    family: str,
    stages: int,
    micro_batches: int,
    corrections: str,
    lengths: tuple[float, ...],
    seeds: int,
) -> Iterator[Run]:
    """Yield the runs of one contestant at its tuned rate."""
    rate = rate_of(family, stages)
    for seed in range(seeds):
        for length in lengths:
            yield Run(family, stages, micro_batches, corrections, rate, length, seed)


CORRECTIONS = (NONE, AUTO)


def one_device(family: str, seeds: int) -> Iterator[Run]:
    """Yield the runs of one device, which no number of micro-batches changes but for rounding."""
    yield from trainings(family, 1, 4, NONE, (1.0,), seeds)


def short() -> Iterator[Run]:
    """Yield the runs of `make bench-delay`."""
    for family in ("gpt-adamw", "gpt-muon", "resnet20"):
        lengths = SHORT_LENGTHS if FAMILIES[family].lower_is_better else (1.0,)
        yield from one_device(family, 3)
        for corrections in CORRECTIONS:
            yield from trainings(family, 8, 4, corrections, lengths, 3)


def rates() -> Iterator[Run]:
    """Yield runs at every rate, at one seed."""
    for name, family in FAMILIES.items():
        deepest = 16 if name.startswith("gpt8") else 8
        for rate in family.rates:
            yield Run(name, 1, 4, NONE, rate, 1.0, 0)
            for corrections in CORRECTIONS:
                yield Run(name, deepest, 4, corrections, rate, 1.0, 0)


def depths() -> Iterator[Run]:
    """Yield runs over stages and micro-batches, at one seed."""
    for name in FAMILIES:
        for stages in (2, 4, 8, 16):
            if stages == 16 and name in ("gpt-adamw", "gpt-muon"):
                continue
            for micro_batches in (4, 8, 16):
                for corrections in CORRECTIONS:
                    yield from trainings(name, stages, micro_batches, corrections, (1.0,), 1)


def targets() -> Iterator[Run]:
    """Yield the runs that tell how many steps a target takes, where the first stage lags most.

    What is not corrected takes longer, and is screened at fewer seeds.
    """
    for name, family in FAMILIES.items():
        deepest = 16 if name.startswith("gpt8") else 8
        yield from one_device(name, 5)
        if not family.lower_is_better:
            yield from trainings(name, deepest, 4, NONE, (1.0, 1.05), 5)
            yield from trainings(name, deepest, 4, AUTO, (1.0,), 5)
            continue
        yield from trainings(name, deepest, 4, AUTO, LENGTHS, 5)
        yield from trainings(name, deepest, 4, NONE, (1.0, 1.2, 1.5, 2.0, 3.0), 3)


def shallow() -> Iterator[Run]:
    """Yield the runs that tell how many steps a target takes where stages lag by one update."""
    for name in ("gpt-adamw", "gpt-muon"):
        yield from one_device(name, 3)
        for corrections in CORRECTIONS:
            yield from trainings(name, 4, 4, corrections, SHORT_LENGTHS, 3)


def rules() -> Iterator[Run]:
    """Yield runs on 8 and 16 stages by the rules of prediction that `auto` does not choose.

    The one that comes nearest to it at the largest lag is trained at more lengths and seeds.
    """
    for name, stages, lag in (
        ("gpt-adamw", 8, 2),
        ("gpt-muon", 8, 2),
        ("gpt8-adamw", 16, 4),
        ("gpt8-muon", 16, 4),
        ("vgg11", 8, 2),
        ("resnet20", 8, 2),
    ):
        chosen = recipe_for(FAMILIES[name].optimizer["name"], lag)
        for recipe in RECIPES.values():
            of_sgd = FAMILIES[name].optimizer["name"] in OF_SGD
            if recipe != chosen and (of_sgd or recipe.name != SPECTRAIN):
                corrections = json.dumps({"recipe": recipe.name})
                yield from trainings(name, stages, 4, corrections, (1.0,), 3)
    yield from trainings("gpt8-muon", 16, 4, json.dumps({"recipe": "balanced"}), LENGTHS, 5)


def policies() -> Iterator[Run]:
    """Yield runs on 8 stages under `replay`, to be compared with those of `short` under `live`."""
    for family in ("gpt-adamw", "gpt-muon", "resnet20"):
        for corrections in CORRECTIONS:
            replayed = json.dumps(json.loads(corrections) | {"weights": "replay"})
            yield from trainings(family, 8, 4, replayed, (1.0,), 3)


def asynchronous() -> Iterator[Run]:
    """Yield runs on 8 stages of the methods that do not flush either, by the rules of their papers.

    PipeDream-2BW needs as many micro-batches a step as there are stages.
    """
    for family in ("gpt-adamw", "gpt-muon", "resnet20"):
        lengths = RIVALS_LENGTHS if FAMILIES[family].lower_is_better else (1.0,)
        for rival, micro_batches in (("pipedream", 4), ("pipedream-2bw", 8), ("fdg", 4)):
            method = json.dumps({"strategy": rival})
            yield from trainings(family, 8, micro_batches, method, lengths, 3)


PARTS = {
    "short": short,
    "rates": rates,
    "depths": depths,
    "targets": targets,
    "shallow": shallow,
    "policies": policies,
    "rules": rules,
    "asynchronous": asynchronous,
}
"""The parts by name; all but `short` are those of `make bench-delay-full`."""
