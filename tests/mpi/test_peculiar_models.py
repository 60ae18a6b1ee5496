"""Whatever a model of one's own does, every strategy trains what sequential training trains."""

import os
from pathlib import Path

import pytest

from tests.mpi.peculiar_models import LAYERS
from tests.mpi.test_exactness import train_cases

HERE = Path(__file__).parent
DECAYING = {"name": "adamw", "lr": 0.02, "weight_decay": 0.1}


@pytest.fixture(autouse=True)
def _models_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.syspath_prepend(str(HERE))


def case(model: str, strategy: str, cuts: list[int] | None, **changed: object) -> dict:
    settings = {
        "model": f"peculiar_models:{model}",
        "dataset": "digits,size=8",
        "strategy": strategy,
        "batch_size": 28,
        "micro_batches": 4,
        "steps": 5,
        "optimizer": DECAYING,
        "seed": 3,
        **changed,
    }
    return settings if cuts is None else {**settings, "cuts": cuts}


def cuts_of(model: str, stages: int) -> list[int]:
    layers = LAYERS[model]
    return [0, *range(1, stages), layers] if stages <= layers else [0, layers]


@pytest.mark.parametrize("stages", [2, 3])
def test_flushing_schedules_train_what_sequential_training_trains(
    stages: int, tmp_path: Path
) -> None:
    alone = {
        o["model"]: o
        for o in train_cases(1, [case(n, "sequential", None) for n in LAYERS], tmp_path)
    }
    cases = [
        case(name, strategy, cuts_of(name, stages))
        for name in LAYERS
        for strategy in ("gpipe", "1f1b")
    ]
    for outcome in train_cases(stages, cases, tmp_path):
        expected = alone[outcome["model"]]
        named = outcome["model"], outcome["strategy"]
        assert outcome["weights_sha256"] == expected["weights_sha256"], named
        assert outcome["train_loss"] == expected["train_loss"], named
        assert outcome["test_accuracy"] == expected["test_accuracy"], named
