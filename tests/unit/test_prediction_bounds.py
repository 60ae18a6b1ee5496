"""How much of a plan is simulated: the bound, and the steps where none are asked for."""

import pytest

from hpc_lpm.errors import InputError
from hpc_lpm.planning import prediction
from hpc_lpm.planning.disturbances import Disturbances
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.prediction import MOST_SIMULATED, SETTLING_STEPS, predict
from hpc_lpm.planning.pricing import make_plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

PROFILE = Profile(
    model="even",
    micro_batch=1,
    device="cpu",
    dtype="float32",
    layers=tuple(
        LayerProfile(
            name=f"layer{number}",
            forward_seconds=1.0,
            backward_seconds=2.0,
            output_bytes=8,
            parameter_bytes=8,
            activation_bytes=8,
        )
        for number in range(4)
    ),
    link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e12),
)
JITTER = Disturbances.of(4, jitter=0.1)


def predicted(steps=None, disturbances=None, **options):
    asked = PlanOptions(**options)
    plan = make_plan(PROFILE, "0" * 64, 4, options=asked)
    return predict(PROFILE, plan, asked, steps=steps, disturbances=disturbances)


def test_ten_steps_of_four_thousand_micro_batches_on_a_thousand_stages_are_simulated():
    assert MOST_SIMULATED >= 10 * 4096 * 1024


def test_the_usual_steps_are_fewer_where_they_would_be_too_many(monkeypatch):
    assert predicted().steps == SETTLING_STEPS + 4
    monkeypatch.setattr(prediction, "MOST_SIMULATED", 10 * 4 * 4)
    found = predicted()
    assert found.steps == 10
    assert found.samples_per_second == pytest.approx(1 / 3)
    assert predicted(steps=10).steps == 10
    with pytest.raises(InputError, match=r"11 steps .* 4 stages are 176 passes .*up to 160.*steps"):
        predicted(steps=11)


def test_a_pipeline_that_cannot_even_fill_and_empty_is_refused(monkeypatch):
    monkeypatch.setattr(prediction, "MOST_SIMULATED", 3 * 4 * 4)
    with pytest.raises(InputError, match=r"^4 steps of 4 micro-batches on 4 stages are 64 passes"):
        predicted()


def test_replicas_that_vary_are_counted(monkeypatch):
    monkeypatch.setattr(prediction, "MOST_SIMULATED", 10 * 4 * 4)
    assert predicted(steps=10, replicas=2).steps == 10
    assert predicted(disturbances=JITTER, replicas=2).steps == 5
    with pytest.raises(InputError, match=r"4 stages of 2 replicas are 192 passes"):
        predicted(steps=6, disturbances=JITTER, replicas=2)
