"""The parts of the study: lists of trainings, each of which becomes one table.

Rates are those that measured best on a grid of factors of about 1.5, at one seed, for an optimizer
on one device and for one of its predictions at this depth; the other corrections share the latter.
"""

from collections.abc import Callable
from dataclasses import replace

from benchmarks.delay_study.correction import NONE, Correction, of_order
from benchmarks.delay_study.trials import Trial

LENGTHS = "lengths"

MIXED = Correction(c1=(1.0, 2.0, 2.4, 2.8), c2=(1.0, 3.0, 3.5, 4.0))
"""The second order up to a lag of 2 updates, and less of it beyond, where it amplifies noise."""
BALANCED = Correction(c1=(0.75, 1.5, 2.1, 2.8), c2=(0.75, 1.95, 3.0, 4.0))
"""Points that bear sharp directions at a moderate noise, found by the search in `stability`."""
SEARCHED = Correction(c1=(0.4, 0.83, 1.35, 1.85), c2=(0.93, 2.24, 3.9, 6.2))
FED_BACK = Correction(fed_back=1.0)

_RULES = {
    "none": NONE,
    "first order": of_order(1),
    "second order": of_order(2),
    "second order, a = 0.7": of_order(2, a=0.7),
    "mixed": MIXED,
    "balanced": BALANCED,
    "searched": SEARCHED,
    "fed back": FED_BACK,
}
_ONE_DEVICE = {"adamw": 8e-3, "muon": 1.6e-2}
_EIGHT_STAGES = {"adamw": 4e-3, "muon": 1.6e-2}
_SIXTEEN_STAGES = {"adamw": 3e-3, "muon": 1.2e-2}
_BEST = {"adamw": "mixed", "muon": "balanced"}


def _at_depth(updates: int, stages: int, rates: dict[str, float], blocks: int) -> list[Trial]:
    trials = []
    for optimizer in ("adamw", "muon"):
        one = Trial("none", optimizer, _ONE_DEVICE[optimizer], updates=updates, blocks=blocks)
        trials.append(one)
        deep = replace(one, stages=stages, rate=rates[optimizer])
        trials += [replace(deep, label=label, correction=rule) for label, rule in _RULES.items()]
    return trials


def eight_stages(updates: int) -> list[Trial]:
    """Every correction at 8 stages."""
    return _at_depth(updates, 8, _EIGHT_STAGES, blocks=6)


def sixteen_stages(updates: int) -> list[Trial]:
    """Every correction at 16 stages, where lags reach 4 updates."""
    return _at_depth(updates, 16, _SIXTEEN_STAGES, blocks=8)


def rates(updates: int) -> list[Trial]:
    """The grids on which the rates were chosen."""
    trials = []
    for optimizer, values in {
        "adamw": (2e-3, 4e-3, 6e-3, 8e-3, 1.2e-2),
        "muon": (4e-3, 8e-3, 1.2e-2, 1.6e-2, 2.4e-2),
    }.items():
        label = _BEST[optimizer]
        for rate in values:
            one = Trial("none", optimizer, rate, updates=updates)
            deep = replace(one, stages=8)
            trials += [one, deep, replace(deep, label=label, correction=_RULES[label])]
    return trials


def lengths(updates: int) -> list[Trial]:
    """Longer trainings at 8 stages, each with its own cosine."""
    trials = []
    for optimizer in ("adamw", "muon"):
        one = Trial("none", optimizer, _ONE_DEVICE[optimizer], updates=updates)
        deep = replace(one, stages=8, rate=_EIGHT_STAGES[optimizer])
        trials.append(one)
        for label in ("none", "first order", _BEST[optimizer]):
            for factor in (1.0, 1.1, 1.2, 1.35, 1.5, 1.8):
                longer = replace(deep, updates=round(updates * factor))
                trials.append(replace(longer, label=label, correction=_RULES[label]))
    return trials


def initialisation(updates: int) -> list[Trial]:
    """Scales of gpt's initial matrices and embeddings, at a rate that suits the smaller ones.

    Those of the first pair make all of them 0.02, which is what they were before this study.
    """
    trials = []
    for blocks, embeddings in ((0.2, 0.02), (1, 0.02), (0.2, 0.2), (1, 0.1), (1, 0.3), (1, 1)):
        one = Trial(
            f"matrices x {blocks}, embeddings x {embeddings}",
            rate=2e-3,
            updates=updates,
            block_scale=blocks,
            embedding_scale=embeddings,
        )
        deep = replace(one, stages=8)
        predicted = replace(deep, label=f"{one.label}, second order", correction=of_order(2))
        trials += [one, deep, predicted]
    return trials


def other_optimizers(updates: int) -> list[Trial]:
    """Adam in a rotating eigenbasis, and AsyncPP's recipe of NAdam with stashing."""
    one = Trial("none", "rotated", 8e-3, updates=updates)
    deep = replace(one, stages=8)
    trials = [one, deep]
    for label in ("second order", "fed back"):
        trials.append(replace(deep, label=label, correction=_RULES[label]))
    for rate in (2e-3, 4e-3, 8e-3):
        stash = Correction(stash=True)
        nadam = Trial("stash", "nadam", rate, 8, stash, updates=updates, beta1=0.99)
        trials += [nadam, replace(nadam, label="none", stages=1, correction=NONE)]
    return trials


def other_corrections(updates: int) -> list[Trial]:
    """What published methods and the schedule of the rate do for AdamW at 8 stages."""
    second = of_order(2)
    deep = Trial("none", "adamw", 4e-3, 8, updates=updates)
    tried = {
        "second order, stash": replace(second, stash=True),
        "DC-ASGD, lambda = 1": Correction(stash=True, compensation=1.0),
        "DC-ASGD, lambda = 100": Correction(stash=True, compensation=100.0),
        "second order, head 10 %": replace(second, head=0.1),
        "second order, tail 10 %": replace(second, tail=0.1),
    }
    trials = [replace(deep, label=label, correction=rule) for label, rule in tried.items()]
    for rate, steps in ((6e-3, 0.5), (8e-3, 0.5), (8e-3, 1e6)):
        rule = replace(second, discount_steps=steps * updates)
        label = "second order, discount over " + ("all time" if steps > 1 else "half of the time")
        trials.append(replace(deep, label=label, rate=rate, correction=rule))
    one = replace(deep, label="none, warm-up 20 %", stages=1, rate=8e-3, warm_up=updates // 5)
    trials += [one, replace(one, label="second order, warm-up 20 %", stages=8, correction=second)]
    for beta1 in (0.8, 0.95):
        slow = replace(deep, label=f"none, beta1 {beta1}", stages=1, rate=8e-3, beta1=beta1)
        quick = replace(deep, label=f"second order, beta1 {beta1}", correction=second, beta1=beta1)
        trials += [slow, quick]
    return trials


def digits(updates: int) -> list[Trial]:
    """ResNet-20 on 5,000 digits by SGD with momentum."""
    one = Trial(
        "none",
        "momentum",
        0.1,
        updates=max(1, updates * 3 // 10),
        batch=64,
        task="resnet20",
    )
    deep = replace(one, stages=8)
    rules = ("none", "first order", "second order", "fed back")
    return [one, *(replace(deep, label=label, correction=_RULES[label]) for label in rules)]


PARTS: dict[str, Callable[[int], list[Trial]]] = {
    "eight-stages": eight_stages,
    "sixteen-stages": sixteen_stages,
    "rates": rates,
    LENGTHS: lengths,
    "initialisation": initialisation,
    "other-optimizers": other_optimizers,
    "other-corrections": other_corrections,
    "digits": digits,
}
