"""The benchmark of advice: what it races is what the advice says, and what it counts as right."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import advice
from benchmarks.advice_cases import CASES
from hpc_lpm.data.registry import dataset_shape
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profile_file import LinkProfile

LINK = LinkProfile(latency_seconds=1e-6, bandwidth_bytes_per_second=5e9)


def test_there_are_twelve_cases_whose_steps_divide_by_what_is_profiled() -> None:
    assert len(CASES) == 12
    assert len({case.name for case in CASES}) == 12
    for case in CASES:
        assert all(case.batch_size % size == 0 for size in case.sizes)
        assert (case.model is None) == bool(case.layers)


def test_the_first_strategies_are_raced_in_the_ways_that_the_advice_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (case,) = [each for each in CASES if each.name == "uneven-8"]
    paths = case.write_profiles(tmp_path, LINK)
    monkeypatch.setattr(advice, "_profiles", lambda *_: paths)
    told = advice.asked(case, tmp_path)
    raced = advice.contestants(case, told, 4, tmp_path)
    assert len(raced) == 4
    parallel = [each for each in told["strategies"] if each["strategy"] != "sequential"]
    for contestant, each in zip(raced, parallel, strict=False):
        settings = checked_settings(**contestant.settings)
        assert settings.strategy == each["strategy"]
        assert settings.micro_batches == each["micro_batches"]
        if each["cuts"]:
            assert settings.plan is not None
            assert list(Plan.read(settings.plan).cuts) == each["cuts"]
            assert settings.own.model_dump()["lead"] == each["options"].get("lead", 1)


def test_weighty_devices_have_weights_of_the_profiled_size_whose_gradients_are_there(
    tmp_path: Path,
) -> None:
    (case,) = [each for each in CASES if each.name == "even-8"]
    path = case.write_profiles(tmp_path, LINK)[-1]
    name = case.model_of(path)
    model = create_model(name, dataset_shape(case.dataset))
    layer = model.layers[1].build().eval()
    assert sum(4 * each.numel() for each in layer.parameters()) == case.weight_bytes
    layer(torch.ones(2, 3)).sum().backward()
    assert all(each.grad is not None for each in layer.parameters())
    assert next(one for one in CASES if one.name == "deep-8").model_of(path) == f"replay:{path}"


def table(**rates: tuple[float, float]) -> pd.DataFrame:
    """Return rows of one case in the order of the advice, from measured rates and worths."""
    return pd.DataFrame(
        [
            {
                "case": "one",
                "devices": 8,
                "place": place,
                "strategy": name,
                "way": "8 x 1, M = 8",
                "predicted": 100.0,
                "measured": rate,
                "interval": f"{rate}",
                "worth": worth,
                "memory_bytes": 2**20,
                "n": 7,
                "effective": rate * worth,
            }
            for place, (name, (rate, worth)) in enumerate(rates.items(), start=1)
        ]
    )


@pytest.mark.parametrize(
    ("rates", "share", "right"),
    [
        ({"a": (100.0, 1.0), "b": (90.0, 1.0)}, 1.0, True),
        ({"a": (96.0, 1.0), "b": (100.0, 1.0)}, 0.96, True),
        ({"a": (94.0, 1.0), "b": (100.0, 1.0)}, 0.94, False),
        ({"a": (100.0, 1.0), "b": (120.0, 0.5)}, 1.0, True),
    ],
)
def test_a_choice_within_five_percent_of_the_measured_best_is_right(rates, share, right) -> None:
    (verdict,) = advice.judged(table(**rates)).to_dict("records")
    assert verdict["first"] == "a"
    assert verdict["share"] == pytest.approx(share)
    assert verdict["right"] is right
    text = advice.report(table(**rates))
    assert f"in {int(right)} of 1 cases" in text
    assert f"| one | a | {verdict['best']} | {share:.3f} |" in text
