"""Bits equal the FBP recurrence's with up to 16 micro-batches per step, and at the ends of K."""

from collections import Counter
from pathlib import Path

import pytest

from tests.mpi.test_exactness import (
    GPT,
    MLP,
    RESNET,
    case,
    layer_count,
    reference_sha256,
    train_cases,
)

pytestmark = pytest.mark.mpi

MOMENTUM = {"name": "momentum", "lr": 0.1, "momentum": 0.9}
ADAMW = {"name": "adamw", "lr": 0.1}

# model, K, M, lead, weights, optimizer: each value of a column meets several of the others.
COVERING = [
    (MLP, 2, 5, 1, "replay", MOMENTUM),
    (MLP, 2, 8, 2, "live", ADAMW),
    (MLP, 2, 12, 1, "stash", MOMENTUM),
    (MLP, 2, 16, 2, "replay", ADAMW),
    (RESNET, 2, 16, 1, "live", MOMENTUM),
    (GPT, 2, 7, 2, "stash", ADAMW),
    (MLP, 3, 5, 2, "stash", ADAMW),
    (MLP, 3, 8, 1, "replay", MOMENTUM),
    (MLP, 3, 16, 1, "live", ADAMW),
    (RESNET, 3, 12, 2, "replay", MOMENTUM),
    (GPT, 3, 9, 1, "live", MOMENTUM),
    (MLP, 4, 5, 2, "live", MOMENTUM),
    (MLP, 4, 12, 2, "live", ADAMW),
    (MLP, 4, 16, 2, "stash", MOMENTUM),
    (RESNET, 4, 8, 1, "stash", ADAMW),
    (RESNET, 4, 5, 2, "replay", ADAMW),
    (GPT, 4, 12, 1, "replay", ADAMW),
    (GPT, 4, 8, 2, "replay", MOMENTUM),
]
STEPS = 3


def covering_case(
    model: str, stages: int, per_step: int, lead: int, weights: str, optimizer: dict
) -> dict:
    more = {"lead": lead, "weights": weights, "optimizer": optimizer}
    return case(model, "fbp", stages, per_step, STEPS, **more)


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_large_steps_are_the_recurrence_bit_for_bit_whatever_the_timing(
    stages: int, tmp_path: Path
) -> None:
    cases = [covering_case(*row) for row in COVERING if row[1] == stages]
    asleep = [{**c, "sleep": True} for c in cases]
    for c, outcome in zip(cases, train_cases(stages, asleep, tmp_path), strict=True):
        assert outcome["weights_sha256"] == reference_sha256(c, stages), outcome["settings"]


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_lags_and_in_flight_of_large_steps_are_those_of_the_formulas(
    stages: int, tmp_path: Path
) -> None:
    rows = [row for row in COVERING if row[1] == stages and row[0] == MLP]
    for (_, _, m, lead, *_), outcome in zip(
        rows, train_cases(stages, [covering_case(*row) for row in rows], tmp_path), strict=True
    ):
        for k in range(1, stages + 1):
            d, total = lead * (stages - k), m * STEPS
            lags = Counter(n // m - max(n - d, 0) // m for n in range(total))
            assert outcome["lag_counts"][k - 1] == {str(lag): count for lag, count in lags.items()}
            assert outcome["peak_in_flight"][k - 1] == d + 1


def test_every_layer_can_be_a_stage_of_its_own(tmp_path: Path) -> None:
    stages = layer_count(MLP)
    cases = [
        case(MLP, "fbp", stages, per_step, STEPS, lead=lead, weights=weights)
        for per_step, lead, weights in ((2, 1, "replay"), (5, 2, "live"), (8, 1, "stash"))
    ]
    for c, outcome in zip(cases, train_cases(stages, [*map(dict, cases)], tmp_path), strict=True):
        assert outcome["weights_sha256"] == reference_sha256(c, stages), outcome["settings"]


def test_a_single_stage_is_sequential_training(tmp_path: Path) -> None:
    cases = [
        case(model, "fbp", 1, per_step, STEPS, weights=weights)
        for model, per_step, weights in (
            (MLP, 16, "replay"),
            (RESNET, 5, "live"),
            (GPT, 8, "stash"),
        )
    ]
    alone = [case(c["model"], "sequential", 1, c["micro_batches"], STEPS) for c in cases]
    outcomes = train_cases(1, [*map(dict, cases), *alone], tmp_path)
    for c, piped, expected in zip(cases, outcomes, outcomes[len(cases) :], strict=False):
        assert piped["weights_sha256"] == expected["weights_sha256"] == reference_sha256(c, 1)
        assert set(piped["lag_counts"][0]) == {"0"}


def test_a_large_step_before_any_lag_is_the_synchronous_step(tmp_path: Path) -> None:
    cases = [case(model, "fbp", 3, 16, 1, lead=2) for model in (MLP, RESNET, GPT)]
    for outcome in train_cases(3, cases, tmp_path):
        (alone,) = train_cases(1, [case(outcome["model"], "sequential", 1, 16, 1)], tmp_path)
        assert outcome["weights_sha256"] == alone["weights_sha256"]
