"""Under fbp, whatever a model of one's own does is what the recurrence with such layers says."""

from itertools import product
from pathlib import Path

import pytest

from tests.mpi.peculiar_models import LAYERS, Derived
from tests.mpi.played_cases import played_sha256
from tests.mpi.test_exactness import train_cases

pytestmark = pytest.mark.mpi

MICRO_BATCH = 12
POLICIES = ["replay", "live", "stash"]
DECAYING = {"name": "adamw", "lr": 0.02, "weight_decay": 0.1}
MOMENTUM = {"name": "momentum", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
ALONE = [name for name in LAYERS if not name.startswith("shared")]
"""Layers that share parameters are for test_tied_weights.py."""


def case(model: str, weights: str, per_step: int, lead: int, cuts: list[int], **more) -> dict:  # type: ignore[no-untyped-def]
    return {
        "model": f"peculiar_models:{model}",
        "dataset": "digits,size=8",
        "strategy": "fbp",
        "batch_size": MICRO_BATCH * per_step,
        "micro_batches": per_step,
        "steps": 6 if per_step == 1 else 3,
        "optimizer": MOMENTUM if per_step == 1 else DECAYING,
        "seed": 3,
        "weights": weights,
        "lead": lead,
        "cuts": cuts,
        **more,
    }


def cuts_of(model: str, stages: int, late: bool) -> list[int]:
    """Cuts right after the first layers, or right before the last ones."""
    layers = LAYERS[model]
    inner = range(layers - stages, layers - 1) if late else range(1, stages)
    return [0, *inner, layers]


def check(stages: int, cases: list[dict], folder: Path) -> None:
    for c, outcome in zip(cases, train_cases(stages, [*map(dict, cases)], folder), strict=True):
        assert outcome["weights_sha256"] == played_sha256(c, (Derived,)), c


@pytest.mark.parametrize("stages", [2, 3])
def test_fbp_trains_what_the_played_recurrence_trains(stages: int, tmp_path: Path) -> None:
    cases = []
    for place, (model, weights) in enumerate(product(ALONE, POLICIES)):
        # Sizes that follow from the weights are others in the replay.
        if (model, weights) == ("varying", "replay") or (stages == 3 and place % 2):
            continue
        per_step, lead = [(1, 2), (3, 1)][(place // 2 + stages) % 2]
        cuts = cuts_of(model, stages, late=stages == 2 or place // 4 % 2 == 0)
        cases.append(case(model, weights, per_step, lead, cuts))
    check(stages, cases, tmp_path)


def test_policies_differ_where_weights_lag() -> None:
    for model in ("draws", "derived", "structures"):
        cuts = cuts_of(model, 2, late=True)
        assert len({played_sha256(case(model, w, 1, 2, cuts)) for w in POLICIES}) == 3, model


def test_a_smaller_last_batch_is_trained_as_the_played_recurrence_says(tmp_path: Path) -> None:
    kept = {"batch_size": 3 * 64, "last_batch": "keep", "steps": None, "epochs": 1}
    cases = [
        case(model, weights, 3, 2, cuts_of(model, 2, late=True), **kept)
        for model, weights in (
            ("structures", "replay"),
            ("choosing", "live"),
            ("counting", "stash"),
        )
    ]
    check(2, cases, tmp_path)
