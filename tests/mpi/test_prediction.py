"""Forward passes at predicted weights, bit for bit those of the equations.

That one process gives the bits of ranks is shown elsewhere (test_one_process.py), so that it serves
here for what ranks would take long for.
"""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hpc_lpm import prediction_rules
from tests.mpi import test_tied_weights as tied
from tests.mpi.one_process import play_case
from tests.mpi.recurrence import COEFFICIENTS
from tests.mpi.test_exactness import (
    GPT,
    MLP,
    RESNET,
    case,
    layer_count,
    reference_sha256,
    train_cases,
)
from tests.mpi.test_optimizers import MuonByHand
from tests.mpi.test_update_rules import SKIPPING, SPOILED

pytestmark = pytest.mark.mpi

STEPS = 3
MOMENTUM = {"name": "momentum", "lr": 0.1, "momentum": 0.9}
ADAMW = {"name": "adamw", "lr": 0.02, "weight_decay": 0.1}
MUON = {"name": "muon", "lr": 0.03, "weight_decay": 0.1, "options": {"betas": (0.8, 0.9)}}
LONG, WARMUP = 7, 2
COSINE = {"learning_rate": {"schedule": "cosine", "warmup_steps": WARMUP}}
BY_LAST = {"prediction": True, "prediction_rule": "last-update"}
BY_TWO = {"prediction": True, "prediction_rule": "second-order"}
BALANCED = {"prediction": True, "prediction_rule": "balanced"}


def adamw(parameters: list) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.1)


def falling(lr: float) -> Callable[[int, int], float]:
    """A cosine after the warm-up."""

    def rate(_: int, u: int) -> float:
        if u < WARMUP:
            return lr * ((u + 1) / WARMUP)
        return lr * (0.5 * (1 + math.cos(math.pi * ((u - WARMUP) / (LONG - WARMUP)))))

    return rate


OF_ADAMW = {"optimizer": adamw, "rate": falling(0.02)}
OF_MUON = {"optimizer": MuonByHand, "rate": falling(0.03)}
OF_MOMENTUM: dict[str, object] = {}


def by_sgd_cases(stages: int) -> list[dict]:
    return [
        case(model, "fbp", stages, per_step, STEPS, lead=lead, weights=weights, prediction=True)
        for model, per_step, lead in ((MLP, 4, 1), (RESNET, 3, 2), (GPT, 5, 1), (MLP, 2, 2))
        for weights in ("replay", "live", "stash")
    ]


def deep(model: str, per_step: int, weights: str, **more: object) -> dict:
    """Four stages, so that the first is several updates late."""
    return case(model, "fbp", 4, per_step, LONG, weights=weights, **more)


def of_every_optimizer(weights: str) -> list[tuple[dict, dict]]:
    """Cases for one policy, and what the recurrence has for them."""
    return [
        (deep(MLP, 1, weights, optimizer=MOMENTUM, **BY_LAST), OF_MOMENTUM),
        (deep(MLP, 2, weights, optimizer=MOMENTUM, lead=2, **BY_TWO), OF_MOMENTUM),
        (deep(GPT, 2, weights, optimizer=ADAMW, **COSINE, **BY_TWO), OF_ADAMW),
        (deep(GPT, 2, weights, optimizer=ADAMW, lead=2, **COSINE, **BY_LAST), OF_ADAMW),
        (deep(RESNET, 2, weights, optimizer=MUON, **COSINE, **BALANCED), OF_MUON),
    ]


@pytest.mark.parametrize("stages", [2, 3])
def test_prediction_by_sgds_own_step_is_that_of_the_equations_under_every_policy(
    stages: int, tmp_path: Path
) -> None:
    cases = by_sgd_cases(stages)
    asleep = [{**c, "sleep": True} for c in cases]
    for c, outcome in zip(cases, train_cases(stages, asleep, tmp_path), strict=True):
        expected = reference_sha256(c, stages)
        assert outcome["weights_sha256"] == expected, outcome["settings"]
        assert expected != reference_sha256({**c, "prediction": False}, stages)


@pytest.mark.parametrize("weights", ["replay", "live", "stash"])
def test_prediction_by_the_last_updates_is_that_of_the_equations_for_every_optimizer(
    weights: str, tmp_path: Path
) -> None:
    for c, hooks in of_every_optimizer(weights):
        expected = reference_sha256(c, 4, **hooks)
        assert play_case(4, c, tmp_path)["weights_sha256"] == expected, c
        assert expected != reference_sha256({**c, "prediction": False}, 4, **hooks), c


def test_ranks_predict_by_the_last_updates_whatever_the_timing(tmp_path: Path) -> None:
    both = [of_every_optimizer("live")[2], of_every_optimizer("stash")[0]]
    asleep = [{**c, "sleep": True} for c, _ in both]
    for (c, hooks), outcome in zip(both, train_cases(4, asleep, tmp_path), strict=True):
        assert outcome["weights_sha256"] == reference_sha256(c, 4, **hooks), c


def test_the_coefficients_are_those_of_the_equations() -> None:
    for rule, by_lag in COEFFICIENTS.items():
        for lag, expected in by_lag.items():
            assert prediction_rules.coefficients(rule, lag) == expected  # type: ignore[arg-type]


def tied_cases() -> list[tuple[dict, dict]]:
    rules = {"replay": BY_TWO, "live": BY_TWO, "stash": BY_LAST}
    falling_adamw = {"optimizer": ADAMW, **COSINE, "steps": LONG}
    cases: list[tuple[dict, dict]] = []
    for weights, rule in rules.items():
        on_three = tied.case("fbp", 3, 2, weights=weights, lead=2, **{**falling_adamw, **rule})
        on_seven = tied.case("fbp", 3, 3, weights=weights, **{**falling_adamw, **rule})
        on_seven["cuts"] = list(range(8))
        cases += [(on_three, OF_ADAMW), (on_seven, OF_ADAMW)]
    return [*cases, (tied.case("fbp", 1, 3, **BY_TWO), OF_MOMENTUM)]


def test_both_ends_of_a_tie_are_predicted_alike(tmp_path: Path) -> None:
    for c, hooks in tied_cases():
        stages = len(c["cuts"]) - 1
        expected = tied.reference_sha256(c, stages, **hooks)
        assert play_case(stages, c, tmp_path)["weights_sha256"] == expected, c


@pytest.mark.parametrize("rule", [BY_LAST, BY_TWO])
def test_directions_outlive_a_drain(rule: dict, tmp_path: Path) -> None:
    c = deep(MLP, 2, "live", optimizer=ADAMW, **COSINE, **rule)
    drained = {**c, "drain_at": [3, 4]}
    expected = reference_sha256(c, 4, **OF_ADAMW, drains=[3, 4])
    assert play_case(4, drained, tmp_path)["weights_sha256"] == expected
    on_ties, hooks = tied_cases()[0]
    tied_expected = tied.reference_sha256(on_ties, 3, **hooks, drains=[3])
    played = play_case(3, {**on_ties, "drain_at": [3]}, tmp_path)
    assert played["weights_sha256"] == tied_expected


def test_an_update_that_is_skipped_leaves_nothing_to_predict_from(tmp_path: Path) -> None:
    steps = 6
    c = case(SPOILED, "fbp", 4, 3, steps, cuts=[0, 1, 2, 3, 4], lead=2, **SKIPPING, **BY_TWO)
    played = play_case(4, c, tmp_path)
    assert played["skipped_updates"] == [2, 0, 0, 0]
    rate = {"rate": lambda _, update: 0.1 * (1 - update / steps)}
    assert played["weights_sha256"] == reference_sha256(c, 4, skip=True, **rate)


def test_infinite_gradients_spoil_no_prediction_of_the_weights_that_they_leave_alone(
    tmp_path: Path,
) -> None:
    by_own_step = {"prediction": True, "prediction_rule": "spectrain"}
    for weights in ("live", "replay", "stash"):
        more = {**SKIPPING, **by_own_step, "weights": weights}
        c = case(SPOILED, "fbp", 4, 3, 6, cuts=[0, 1, 2, 3, 4], lead=2, **more)
        played = play_case(4, c, tmp_path / weights)
        assert played["skipped_updates"] == [2, 0, 0, 0]
        expected = reference_sha256(c, 4, skip=True, rate=lambda _, u: 0.1 * (1 - u / 6))
        assert played["weights_sha256"] == expected


@pytest.mark.parametrize("rule", [BY_LAST, BY_TWO])
def test_without_lag_nothing_is_predicted(rule: dict, tmp_path: Path) -> None:
    single = case(MLP, "fbp", 1, 4, STEPS)
    plain, predicted = (play_case(1, c, tmp_path) for c in (single, {**single, **rule}))
    assert plain["weights_sha256"] == predicted["weights_sha256"]
    layers = layer_count(MLP)
    first = case(MLP, "fbp", layers, 8, 1, cuts=list(range(layers + 1)))
    plain, predicted = (play_case(layers, c, tmp_path) for c in (first, {**first, **rule}))
    assert plain["weights_sha256"] == predicted["weights_sha256"]
