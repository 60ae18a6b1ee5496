"""Whole numbers and truth values cross boundaries beside floats, under every policy."""

from pathlib import Path

import pytest
import torch

from hpc_lpm.data.registry import load_dataset
from tests.mpi import masked_model
from tests.mpi.recurrence import Recurrence, fingerprint
from tests.mpi.test_exactness import train_cases

pytestmark = pytest.mark.mpi

DATASET = f"text:{Path(torch.__file__).parent / 'functional.py'},sequence=16"
PER_STEP, MICRO_BATCH, STEPS, SEED = 2, 4, 3, 3


def case(strategy: str, stages: int, **more: object) -> dict:
    return {
        "model": "masked_model:make",
        "dataset": DATASET,
        "strategy": strategy,
        "batch_size": PER_STEP * MICRO_BATCH,
        "micro_batches": PER_STEP,
        "steps": STEPS,
        "seed": SEED,
        **({"cuts": [0, 2, 4] if stages == 2 else [0, 1, 2, 3, 4]} if stages > 1 else {}),
        **more,
    }


def recurrence_sha256(c: dict) -> str:
    dataset = load_dataset(DATASET)
    order = torch.randperm(
        len(dataset.train), generator=torch.Generator().manual_seed(SEED * 1_000_003)
    )
    chunks = torch.split(order[: PER_STEP * MICRO_BATCH * STEPS], MICRO_BATCH)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        recurrence = Recurrence(
            masked_model.make(dataset.shape),
            c["cuts"],
            [dataset.train.inputs(chunk) for chunk in chunks],
            [dataset.train.targets(chunk) for chunk in chunks],
            per_step=PER_STEP,
            lead=1,
            seed=SEED,
            weights=c["weights"],
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        )
        return fingerprint(recurrence.finish())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("stages", [2, 4])
def test_tuples_of_mixed_types_cross_every_boundary(stages: int, tmp_path: Path) -> None:
    policies = ["replay", "live", "stash"]
    cases = [case("1f1b", stages), *(case("fbp", stages, weights=p) for p in policies)]
    flushed, *continuous = train_cases(stages, [dict(c) for c in cases], tmp_path)
    (alone,) = train_cases(1, [case("sequential", 1)], tmp_path)
    assert flushed["weights_sha256"] == alone["weights_sha256"]
    for c, outcome in zip(cases[1:], continuous, strict=True):
        assert outcome["weights_sha256"] == recurrence_sha256(c), c["weights"]


def test_gradients_cross_for_floats_alone(tmp_path: Path) -> None:
    (outcome,) = train_cases(2, [case("fbp", 2)], tmp_path)
    positions = MICRO_BATCH * 16
    floats, numbers, truths = 4 * masked_model.WIDTH, 8, 1
    forward, backward = floats + numbers + truths, floats
    passes = PER_STEP * STEPS * positions
    assert outcome["bytes_sent"] == [passes * forward, passes * backward]
