"""The rate of every update: against values written by hand and against torch's own schedulers."""

from collections.abc import Callable

import pytest
import torch
from torch.optim import lr_scheduler

from hpc_lpm.engine.learning_rate import rate_factor
from hpc_lpm.options import LearningRateSettings

UPDATES = 8


def factors(updates: int = UPDATES, **settings: object) -> list[float]:
    chosen = LearningRateSettings.model_validate(settings)
    return [rate_factor(chosen, update, updates) for update in range(updates)]


def of_torch(make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(UPDATES):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"warmup_steps": 4}, [0.25, 0.5, 0.75, 1, 1, 1]),
        ({"warmup_steps": 1}, [1, 1, 1, 1, 1, 1]),
        ({"schedule": "linear", "warmup_steps": 2}, [0.5, 1, 1, 0.75, 0.5, 0.25]),
        (
            {"schedule": "linear", "warmup_steps": 2, "final_factor": 0.5},
            [0.5, 1, 1, 0.875, 0.75, 0.625],
        ),
        (
            {"schedule": "cosine", "warmup_steps": 2},
            [0.5, 1, 1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5],
        ),
        (
            {"schedule": "step", "milestones": [2, 5], "factor": 0.5, "warmup_steps": 2},
            [0.5, 1, 0.5, 0.5, 0.5, 0.25],
        ),
    ],
)
def test_factors_are_those_worked_out_by_hand(
    settings: dict[str, object], expected: list[float]
) -> None:
    assert factors(6, **settings) == pytest.approx(expected, abs=1e-15)


def test_without_a_schedule_the_rate_is_not_touched_by_a_bit() -> None:
    assert [0.1 * factor for factor in factors()] == [0.1] * UPDATES


@pytest.mark.parametrize(
    ("settings", "make"),
    [
        (
            {"schedule": "cosine"},
            lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=UPDATES),
        ),
        (
            {"schedule": "cosine", "final_factor": 0.25},
            lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=UPDATES, eta_min=0.25),
        ),
        (
            {"schedule": "linear", "final_factor": 0.25},
            lambda o: lr_scheduler.LinearLR(o, 1.0, 0.25, total_iters=UPDATES),
        ),
        (
            {"schedule": "step", "milestones": [3, 6], "factor": 0.3},
            lambda o: lr_scheduler.MultiStepLR(o, [3, 6], gamma=0.3),
        ),
        (
            {"warmup_steps": 5},
            lambda o: lr_scheduler.LinearLR(o, 1 / 5, 1.0, total_iters=4),
        ),
    ],
)
def test_factors_are_those_of_torch_where_it_has_the_schedule(
    settings: dict[str, object],
    make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler],
) -> None:
    assert factors(**settings) == pytest.approx(of_torch(make), rel=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_factor_after_the_last_update_is_defined_and_is_the_final_one(schedule: str) -> None:
    settings = LearningRateSettings.model_validate({"schedule": schedule, "final_factor": 0.25})
    after = rate_factor(settings, UPDATES, UPDATES)
    assert after == pytest.approx(1.0 if schedule == "constant" else 0.25)
