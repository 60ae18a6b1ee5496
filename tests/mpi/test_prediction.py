"""Forward passes at predicted weights, bit for bit those of the equations."""

from pathlib import Path

import pytest

from tests.mpi.test_exactness import GPT, MLP, RESNET, case, reference_sha256, train_cases

pytestmark = pytest.mark.mpi

STEPS = 3


def predicted_cases(stages: int) -> list[dict]:
    return [
        case(model, "fbp", stages, per_step, STEPS, lead=lead, weights=weights, prediction=True)
        for model, per_step, lead in ((MLP, 4, 1), (RESNET, 3, 2), (GPT, 5, 1), (MLP, 2, 2))
        for weights in ("replay", "live", "stash")
    ]


@pytest.mark.parametrize("stages", [2, 3])
def test_prediction_is_that_of_the_equations_under_every_weight_policy(
    stages: int, tmp_path: Path
) -> None:
    cases = predicted_cases(stages)
    asleep = [{**c, "sleep": True} for c in cases]
    for c, outcome in zip(cases, train_cases(stages, asleep, tmp_path), strict=True):
        expected = reference_sha256(c, stages)
        assert outcome["weights_sha256"] == expected, outcome["settings"]
        assert expected != reference_sha256({**c, "prediction": False}, stages)


def test_without_lag_nothing_is_predicted(tmp_path: Path) -> None:
    single = case(MLP, "fbp", 1, 4, STEPS)
    plain, predicted = train_cases(1, [single, {**single, "prediction": True}], tmp_path)
    assert plain["weights_sha256"] == predicted["weights_sha256"]
