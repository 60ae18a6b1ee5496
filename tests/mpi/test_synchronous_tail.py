"""The first and the last part of a run without a flush, with one at every step.

The reference is the recurrence that drains after each step of the head and of the tail.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from tests.mpi import test_exactness as exactness
from tests.mpi.recurrence import Recurrence, fingerprint
from tests.mpi.test_exactness import GPT, MLP, RESNET, cuts_of, train_cases

pytestmark = pytest.mark.mpi

PER_STEP, MICRO_BATCH, SEED = 4, 64, 3
TEXT = f"text:{Path(torch.__file__).parent / 'functional.py'},sequence=128"
DATASETS = {RESNET: "digits,size=16", GPT: TEXT}


def case(model: str, stages: int, **more: object) -> dict:
    return {
        "model": model,
        "dataset": DATASETS[model],
        "strategy": "fbp",
        "batch_size": PER_STEP * MICRO_BATCH,
        "micro_batches": PER_STEP,
        "epochs": 2,
        "seed": SEED,
        "synchronous_tail": 1,
        "weights": "replay",
        "cuts": cuts_of(model, stages),
        **more,
    }


def epoch_chunks(samples: int, epoch: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(SEED * 1_000_003 + epoch)
    order = torch.randperm(samples, generator=generator)
    batch = PER_STEP * MICRO_BATCH
    return list(torch.split(order[: samples - samples % batch], MICRO_BATCH))


def reference_sha256(case: dict, tail_steps: int | None = None) -> str:
    dataset = load_dataset(case["dataset"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, second = (epoch_chunks(len(dataset.train), epoch) for epoch in range(2))
        recurrence = Recurrence(
            create_model(case["model"], dataset.shape),
            case["cuts"],
            [dataset.train.inputs(chunk) for chunk in first],
            [dataset.train.targets(chunk) for chunk in first],
            per_step=PER_STEP,
            lead=1,
            seed=SEED,
            weights=case.get("weights", "live"),
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
            prediction="spectrain" if case.get("prediction") else None,
        )
        tail = second[: None if tail_steps is None else tail_steps * PER_STEP]
        layers = recurrence.then_synchronously(
            [dataset.train.inputs(chunk) for chunk in tail],
            [dataset.train.targets(chunk) for chunk in tail],
            len(first),
        )
        return fingerprint(layers)
    finally:
        torch.set_num_threads(threads)


def steps_an_epoch(model: str) -> int:
    return len(epoch_chunks(len(load_dataset(DATASETS[model]).train), 0)) // PER_STEP


def test_a_tail_goes_on_with_sequential_steps_from_the_weights_of_the_recurrence(
    tmp_path: Path,
) -> None:
    cut_short = steps_an_epoch(RESNET) + 2
    cases = [
        case(RESNET, 3),
        case(GPT, 3, weights="live"),
        case(RESNET, 3, weights="stash", prediction=True),
        case(RESNET, 3, epochs=None, steps=cut_short),
    ]
    outcomes = train_cases(3, [*map(dict, cases)], tmp_path)
    for c, outcome in zip(cases, outcomes, strict=True):
        assert outcome["weights_sha256"] == reference_sha256(c, 2 if "steps" in c else None)


def test_nothing_lags_in_the_tail(tmp_path: Path) -> None:
    lagging = {**case(RESNET, 2), "epochs": 1, "synchronous_tail": 0}
    once, tail, whole = train_cases(
        2, [lagging, case(RESNET, 2), case(RESNET, 2, synchronous_tail=2)], tmp_path
    )
    micro_batches = steps_an_epoch(RESNET) * PER_STEP
    assert once["lag_counts"][0]["1"] > 0
    assert tail["lag_counts"][0]["1"] == once["lag_counts"][0]["1"]
    assert tail["lag_counts"][0]["0"] == once["lag_counts"][0]["0"] + micro_batches
    assert whole["lag_counts"] == [{"0": 2 * micro_batches}] * 2


def test_a_head_and_a_tail_of_steps_are_the_recurrence_that_drains_after_each_of_them(
    tmp_path: Path,
) -> None:
    parts = [
        (RESNET, {"synchronous_head": "3steps", "weights": "live"}, [1, 2, 3]),
        (MLP, {"synchronous_head": "2steps", "synchronous_tail": "25%"}, [1, 2, 6, 7]),
        (MLP, {"synchronous_head": "50%", "lead": 2}, [1, 2, 3, 4]),
        (GPT, {"synchronous_tail": "2steps", "weights": "stash"}, [6, 7]),
    ]
    cases = [exactness.case(model, "fbp", 3, 2, 8, **part) for model, part, _ in parts]
    outcomes = train_cases(3, [*map(dict, cases)], tmp_path)
    for c, outcome, (_, _, drains) in zip(cases, outcomes, parts, strict=True):
        expected = exactness.reference_sha256(c, 3, drains=drains)
        assert outcome["weights_sha256"] == expected, outcome["settings"]
        assert expected != exactness.reference_sha256(c, 3)
