"""Rules of the update that concern all stages give what one device gives, bit for bit."""

import math
from pathlib import Path

import pytest
import torch

from tests.mpi.own_updates import Lion
from tests.mpi.test_exactness import (
    DATASETS,
    FLUSHING,
    GPT,
    MLP,
    RESNET,
    case,
    reference_sha256,
    train_cases,
)

pytestmark = pytest.mark.mpi

TIED = f"{GPT},tied=true"
DATASETS[TIED] = DATASETS[GPT]
GROUPS = {
    "optimizer": {
        **{"name": "momentum", "lr": 0.1, "weight_decay": 0.5},
        **{"no_decay": ["norm-and-bias"], "lr_scale": ["*=0.5", "*[tr].weight=0.25"]},
    }
}
TIED_GROUPS = {
    "optimizer": {
        **{"name": "adamw", "lr": 0.01, "weight_decay": 0.5},
        **{"no_decay": ["head.weight"], "lr_scale": ["head.*=0.5"]},
    }
}


def same_as_sequential(cases: list[tuple[str, dict]], folder: Path, steps: int = 4) -> list[dict]:
    """Train each on one device, then on every strategy that flushes; return what came of one."""
    alone = train_cases(
        1, [case(model, "sequential", 1, 3, steps, **more) for model, more in cases], folder
    )
    split = [
        (number, case(model, strategy, 2, 3, steps, **more))
        for number, (model, more) in enumerate(cases)
        for strategy in (FLUSHING if model == MLP else ["1f1b"])
    ]
    outcomes = train_cases(2, [c for _, c in split], folder)
    for (number, _), outcome in zip(split, outcomes, strict=True):
        for figure in ("weights_sha256", "train_loss"):
            assert outcome[figure] == alone[number][figure], outcome["settings"]
    return alone


def by_dimensions(parameters: list) -> torch.optim.Optimizer:
    """The groups of `GROUPS` without the output's, by hand."""
    groups: list[dict] = [{"params": [p for p in parameters if p.dim() > 1]}]
    groups.append({"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0})
    return torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.5)


def test_groups_are_the_same_on_every_cut_and_under_every_schedule(tmp_path: Path) -> None:
    same_as_sequential([(MLP, GROUPS), (RESNET, GROUPS), (TIED, TIED_GROUPS)], tmp_path)
    lagging = {"optimizer": {**GROUPS["optimizer"], "lr_scale": ["*=0.5"]}}
    lagged = [
        case(MLP, "fbp", 2, 3, 4, lead=2, **lagging),
        case(MLP, "fbp", 2, 3, 4, lead=2, weights="live", prediction=True, **lagging),
    ]
    outcomes = train_cases(2, [*map(dict, lagged)], tmp_path)
    for c, outcome in zip(lagged, outcomes, strict=True):
        assert outcome["weights_sha256"] == reference_sha256(c, 2, optimizer=by_dimensions)
    names = [name for group in outcomes[0]["parameter_groups"] for name in group["parameters"]]
    assert len(names) == 8, "those of both stages"


CLIP = {"optimizer": {"name": "momentum", "lr": 0.1}, "clip_norm": 0.05}


def test_clipping_by_the_norm_of_all_stages_is_that_of_one_device(tmp_path: Path) -> None:
    clipped = [(model, CLIP) for model in (MLP, TIED)]
    *alone, free = same_as_sequential([*clipped, (MLP, {})], tmp_path)
    assert alone[0]["weights_sha256"] != free["weights_sha256"]
    assert {outcome["settings"]["clip_scope"] for outcome in alone} == {"global"}
    by_stage = case(MLP, "1f1b", 2, 3, 4, **CLIP, clip_scope="stage")
    lagging = case(MLP, "fbp", 2, 3, 4, **CLIP)
    apart, lagged = train_cases(2, [by_stage, lagging], tmp_path)
    assert apart["weights_sha256"] != alone[0]["weights_sha256"]
    assert lagged["settings"]["clip_scope"] == "stage"
    replicated = case(MLP, "1f1b", 2, 3, 4, **{**CLIP, "batch_size": 24})
    (whole,) = train_cases(
        1, [case(MLP, "sequential", 1, 6, 4, **{**CLIP, "batch_size": 24})], tmp_path
    )
    (two,) = train_cases(4, [replicated], tmp_path)
    assert two["replicas"] == 2
    assert two["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-5)


OWN = "tests.mpi.own_updates"
OWN_UPDATES = {
    "optimizer": {"name": f"{OWN}:Lion", "lr": 0.01, "weight_decay": 0.1},
    "learning_rate": {"schedule": f"{OWN}:Slower"},
}


def test_ones_own_optimizer_and_schedule_train_stages_as_one_device(tmp_path: Path) -> None:
    same_as_sequential([(MLP, OWN_UPDATES)], tmp_path)
    lagged = case(MLP, "fbp", 2, 3, 4, lead=2, **OWN_UPDATES)
    (outcome,) = train_cases(2, [dict(lagged)], tmp_path)
    rates = [0.01]
    for update in range(1, 4):
        rates.append(rates[-1] / (1 + 0.1 * math.sqrt(update)))
    assert outcome["weights_sha256"] == reference_sha256(
        *(lagged, 2),
        optimizer=lambda p: Lion(p, 0.01, weight_decay=0.1),
        rate=lambda stage, update: rates[update],
    )
