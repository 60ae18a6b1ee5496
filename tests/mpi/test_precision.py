"""Bits equal the FBP recurrence's in mixed precision and in channels-last order."""

from pathlib import Path

import pytest
import torch

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from tests.mpi.recurrence import Recurrence, fingerprint
from tests.mpi.test_exactness import GPT, MICRO_BATCH, RESNET, case, train_cases

pytestmark = pytest.mark.mpi

BF16 = {"precision": "bf16"}
CHANNELS_LAST = {"memory_format": "channels_last"}
BOTH = {**BF16, **CHANNELS_LAST}
FORMATS = [BF16, CHANNELS_LAST, BOTH]
FLUSHING = ["gpipe", "1f1b", "naive", "deepspeed-1f1b"]


def reference_sha256(case: dict) -> str:
    """Weights after the recurrence, on the micro-batches that the seed's order gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        dataset = load_dataset(case["dataset"])
        channels_last = case.get("memory_format") == "channels_last"
        generator = torch.Generator().manual_seed(case["seed"] * 1_000_003)
        order = torch.randperm(len(dataset.train), generator=generator)
        chunks = order[: case["batch_size"] * case["steps"]].split(MICRO_BATCH)
        inputs = [dataset.train.inputs(chunk) for chunk in chunks]
        if channels_last:
            inputs = [
                x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs
            ]
        recurrence = Recurrence(
            create_model(case["model"], dataset.shape),
            case["cuts"],
            inputs,
            [dataset.train.targets(chunk) for chunk in chunks],
            per_step=case["micro_batches"],
            lead=case.get("lead", 1),
            seed=case["seed"],
            weights=case["weights"],
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
            precision=case.get("precision", "fp32"),
            channels_last=channels_last,
        )
        return fingerprint(recurrence.finish())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("stages", [2, 3])
def test_a_flushing_schedule_is_sequential_training_bit_for_bit(
    stages: int, tmp_path: Path
) -> None:
    cases, alone = [], []
    for model in (RESNET, GPT):
        for form in FORMATS:
            cases.append([case(model, strategy, stages, 3, 3, **form) for strategy in FLUSHING])
            alone.append(case(model, "sequential", 1, 3, 3, **form))
    expected = train_cases(1, [dict(c) for c in alone], tmp_path)
    outcomes = iter(train_cases(stages, [dict(c) for same in cases for c in same], tmp_path))
    for same, single in zip(cases, expected, strict=True):
        for c in same:
            outcome = next(outcomes)
            assert outcome["weights_sha256"] == single["weights_sha256"], c
            assert outcome["train_loss"] == single["train_loss"], c
            assert outcome["test_accuracy"] == single["test_accuracy"], c
    assert len({outcome["weights_sha256"] for outcome in expected}) > len(FORMATS)


def test_fbp_is_the_recurrence_bit_for_bit_under_every_weight_policy(tmp_path: Path) -> None:
    cases = [
        case(model, "fbp", 2, per_step, 4, weights=weights, **form)
        for model, form in ((RESNET, BF16), (RESNET, BOTH), (GPT, BF16))
        for weights in ("replay", "stash", "live")
        for per_step in (1, 3)
    ]
    outcomes = train_cases(2, [dict(c) for c in cases], tmp_path)
    for c, outcome in zip(cases, outcomes, strict=True):
        assert outcome["weights_sha256"] == reference_sha256(c), c
    # The policies differ, so that agreeing with one of them means something.
    assert len({outcome["weights_sha256"] for outcome in outcomes}) == len(cases)


def test_half_the_bytes_cross_where_the_last_layer_returns_bfloat16(tmp_path: Path) -> None:
    cases = [case(RESNET, "fbp", 2, 2, 2, **form) for form in ({}, BF16, CHANNELS_LAST)]
    single, half, reordered = train_cases(2, cases, tmp_path)
    assert [2 * sent for sent in half["bytes_sent"]] == single["bytes_sent"]
    assert reordered["bytes_sent"] == single["bytes_sent"]
