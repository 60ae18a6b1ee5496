"""Rules of the update that concern all stages give what one device gives, bit for bit."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from tests.mpi.own_updates import Lion
from tests.mpi.recurrence import fingerprint
from tests.mpi.test_exactness import (
    DATASETS,
    FLUSHING,
    GPT,
    MICRO_BATCH,
    MLP,
    RESNET,
    case,
    reference_sha256,
    train_cases,
)

pytestmark = pytest.mark.mpi

OWN = "tests.mpi.own_updates"
TIED = f"{GPT},tied=true"
DATASETS[TIED] = DATASETS[GPT]
GROUPS = {
    "optimizer": {
        **{"name": "momentum", "lr": 0.1, "weight_decay": 0.5},
        **{"no_decay": ["norm-and-bias"], "lr_scale": ["*=0.5", "*[tr].weight=0.25"]},
    }
}
BY_MUON = {"optimizer": {"name": "muon", "lr": 0.01, "weight_decay": 0.5}}
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
    chosen = [(MLP, GROUPS), (RESNET, GROUPS), (TIED, TIED_GROUPS), (TIED, BY_MUON)]
    *_, by_muon = same_as_sequential(chosen, tmp_path)
    rules = {group["rule"]: group["parameters"] for group in by_muon["parameter_groups"]}
    assert len(rules["muon"]) == 8
    assert all(name.startswith("block") for name in rules["muon"])
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


SPOILED, NOT_A_NUMBER = f"{OWN}:spoiled", f"{OWN}:spoiled,where=loss"
DATASETS[SPOILED] = DATASETS[NOT_A_NUMBER] = DATASETS[MLP]
SKIPPING = {
    "optimizer": {"name": "momentum", "lr": 0.1},
    "learning_rate": {"schedule": "linear"},
    "non_finite": "skip",
}
SKIPPED = [1, 2]
"""The steps that have a micro-batch which spoils gradients."""


def loop_that_skips(model: str, steps: int, clip: float | None) -> str:
    """Plain training that leaves out what is not finite, as one writes it by hand."""
    data = load_dataset(DATASETS[model])
    chain = create_model(model, data.shape, 3)
    layers = [chain.build_layer(i, 3) for i in range(len(chain.layers))]
    network = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda u: 1.0 + (0.0 - 1.0) * u / steps)
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(3 * 1_000_003))
    for step in range(steps):
        optimizer.zero_grad()
        for n in range(3 * step, 3 * step + 3):
            chunk = order[n * MICRO_BATCH : (n + 1) * MICRO_BATCH]
            loss = chain.loss(network(data.train.inputs(chunk)), data.train.targets(chunk))
            (loss / 3).backward()
        if all(p.grad is None or p.grad.isfinite().all() for p in network.parameters()):
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()
        schedule.step()
    return fingerprint(layers)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_updates_that_are_not_finite_are_skipped_everywhere_or_by_stages_that_never_meet(
    tmp_path: Path,
) -> None:
    cases = [
        (SPOILED, SKIPPING),
        (NOT_A_NUMBER, SKIPPING),
        (SPOILED, SKIPPING | {"clip_norm": 0.05}),
    ]
    alone = train_cases(1, [case(m, "sequential", 1, 3, 6, **more) for m, more in cases], tmp_path)
    for (model, more), outcome in zip(cases, alone, strict=True):
        assert outcome["weights_sha256"] == loop_that_skips(model, 6, more.get("clip_norm"))
        assert outcome["skipped_updates"] == [2]
    losses = [step for step, loss in enumerate(alone[1]["train_loss"]) if loss is None]
    assert losses == SKIPPED
    split = [
        (number, {**case(model, strategy, 2, 3, 6, **more), "cuts": [0, 2, 4]})
        for number, (model, more) in enumerate(cases)
        for strategy in FLUSHING
    ]
    for (number, c), outcome in zip(
        split, train_cases(2, [dict(c) for _, c in split], tmp_path), strict=True
    ):
        assert outcome["weights_sha256"] == alone[number]["weights_sha256"], c
        assert outcome["train_loss"] == alone[number]["train_loss"], c
        assert outcome["skipped_updates"] == [2, 2], c
    shared = case(SPOILED, "sequential", 1, 2, 6, **SKIPPING)
    (one,) = train_cases(1, [dict(shared)], tmp_path)
    data_parallel = ["ddp", "horovod"] if importlib.util.find_spec("horovod") else ["ddp"]
    apart = [{**shared, "strategy": name} for name in data_parallel]
    for two in train_cases(2, apart, tmp_path):
        assert two["skipped_updates"] == one["skipped_updates"] * 2
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    lagged = {**case(SPOILED, "fbp", 2, 3, 6, lead=2, **SKIPPING), "cuts": [0, 2, 4]}
    (outcome,) = train_cases(2, [dict(lagged)], tmp_path)
    assert outcome["skipped_updates"] == [2, 0]
    assert outcome["weights_sha256"] == reference_sha256(
        lagged, 2, skip=True, rate=lambda stage, update: 0.1 * (1 - update / 6)
    )


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
