"""FSDP2 trains the function of one device, of which every rank holds a share."""

import json
from pathlib import Path

import pytest
import torch

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.checkpoint.export import export_weights
from hpc_lpm.models.registry import create_model
from tests.mpi.ranks import mpirun
from tests.mpi.test_evaluate_run import check_evaluated
from tests.mpi.test_exactness import GPT as LARGER_GPT
from tests.mpi.test_exactness import RESNET, train_cases
from tests.mpi.test_longer_runs import epochs
from tests.mpi.test_optimizers import CLIP, COSINE, updates_of
from tests.mpi.test_outside_engines import GPT, TEXT, TIED, case, refusal
from tests.mpi.test_resume import (
    ADAMW,
    check_resumed_as_whole,
    interrupted,
    once,
    run_groups,
    settings,
)
from tests.mpi.test_update_rules import SKIPPING, SPOILED

pytestmark = pytest.mark.mpi

TO_THE_BIT = [
    *("nothing_learns_first", "detached", "auxiliary", "nothing_reaches_the_loss"),
    *("varying", "anything", "mixed_types", GPT, TIED),
]
"""Models whose sums FSDP2 makes in the order of one device, with a micro-batch a rank."""
IN_ANOTHER_ORDER = ["unused", "twice_the_same", "sparse_gradients"]
ONE_EACH = {"micro_batches": 2}


def cases_of(strategy: str, models: list[str], **more: object) -> list[dict]:
    return [case(model, strategy, **more) for model in models]


def test_ranks_with_a_micro_batch_each_train_as_one_device(tmp_path: Path) -> None:
    models = TO_THE_BIT + IN_ANOTHER_ORDER
    apart = train_cases(2, cases_of("fsdp", models, **ONE_EACH), tmp_path)
    alone = train_cases(1, cases_of("sequential", models, **ONE_EACH), tmp_path)
    for model, got, expected in zip(models, apart, alone, strict=True):
        assert got["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5), model
        assert got["test_accuracy"] == expected["test_accuracy"], model
        if model in TO_THE_BIT:
            assert got["weights_sha256"] == expected["weights_sha256"], model


def other_cases(strategy: str) -> list[dict]:
    """Several micro-batches a rank, and the rules of a step."""
    lion = {"name": "tests.mpi.own_updates:Lion", "lr": 0.01, "weight_decay": 0.1}
    rules = [
        {"clip_norm": CLIP},
        {"clip_norm": CLIP, "clip_scope": "stage"},
        {"precision": "bf16"},
        updates_of(
            {"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "no_decay": ["norm-and-bias"]},
            COSINE,
        ),
        updates_of(lion, COSINE, clip_norm=CLIP),
    ]
    ruled = [case(TIED, strategy, **more) for more in rules]
    several = cases_of(strategy, ["detached", "varying", GPT, *IN_ANOTHER_ORDER])
    clipped = cases_of(strategy, ["mixed_types", "anything", "unused"], clip_norm=CLIP)
    spoiled = {"model": SPOILED, "strategy": strategy, "steps": 6, "batch_size": 16}
    return [*several, *clipped, *ruled, {**case("unused", strategy), **spoiled, **SKIPPING}]


def test_ranks_of_several_micro_batches_train_as_one_device(tmp_path: Path) -> None:
    apart = train_cases(2, other_cases("fsdp"), tmp_path)
    alone = train_cases(1, other_cases("sequential"), tmp_path)
    for got, expected in zip(apart, alone, strict=True):
        chosen = got["settings"]
        # Some types have few digits, in which another order of a sum shows.
        coarse = chosen["precision"] == "bf16" or "mixed_types" in chosen["model"]
        share = 2e-3 if coarse else 1e-4
        assert got["train_loss"] == pytest.approx(expected["train_loss"], rel=share), chosen
        assert got["skipped_updates"] == expected["skipped_updates"] * 2, chosen


def test_ranks_send_the_weights_twice_for_each_pass_and_the_gradients_once(tmp_path: Path) -> None:
    (found,) = train_cases(2, [case(GPT, "fsdp")], tmp_path)
    model = create_model(GPT, load_dataset(TEXT).shape)
    of_layers = [model.build_layer(index, 0) for index in range(len(model.layers))]
    padded = sum(
        4 * (p.shape[0] + p.shape[0] % 2) * p[0].numel()
        for each in of_layers
        for p in each.parameters()
    )
    # 5 steps of 2 micro-batches a rank, forward and backward, and one scattering.
    assert found["bytes_sent"] == [5 * (2 * 2 + 1) * padded // 2] * 2


def test_a_last_batch_that_leaves_ranks_without_a_micro_batch_is_trained(tmp_path: Path) -> None:
    samples = len(load_dataset("digits,size=8").train)
    batch_size = next(b for b in range(64, 512, 4) if 0 < samples % b <= b // 4)
    common = {
        **{"model": "mlp,width=24,layers=4", "dataset": "digits,size=8", "last_batch": "keep"},
        **{"batch_size": batch_size, "micro_batches": 4, "epochs": 2, "seed": 3},
        "optimizer": {"name": "adamw", "lr": 0.01},
    }
    (together,) = train_cases(2, [{**common, "strategy": "fsdp"}], tmp_path)
    (alone,) = train_cases(1, [{**common, "strategy": "sequential"}], tmp_path)
    assert together["test_accuracy"] == pytest.approx(alone["test_accuracy"], abs=0.01)
    assert together["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-3)


def test_runs_go_on_and_are_evaluated_and_exported_to_the_bit(tmp_path: Path) -> None:
    runs = [
        settings(LARGER_GPT, "fsdp", 2, 4, optimizer=ADAMW, clip_norm=0.5),
        settings(RESNET, "fsdp", 2, 4),
    ]
    groups = [
        interrupted(run, tmp_path / str(number), once(number, 3 + number, "SIGTERM"))
        for number, run in enumerate(runs)
    ]
    evaluated = {**epochs(RESNET, "fsdp", 2, epochs=1, validation=0.1), "evaluate_all": True}
    groups.append([{**evaluated, "folder": str(tmp_path / "evaluated")}] * 2)
    *resumed, (outcome, _) = run_groups(2, groups, tmp_path)
    for group, outcomes in zip(groups, resumed, strict=False):
        check_resumed_as_whole(outcomes, group)
    check_evaluated(tmp_path / "evaluated", outcome, ("test", "validation"))


def test_weights_and_norms_of_a_command_are_those_of_the_whole_model(tmp_path: Path) -> None:
    def logged(ranks: int, strategy: str) -> list[dict]:
        out = tmp_path / strategy
        done = mpirun(
            ranks,
            *("-m", "hpc_lpm", "train", "--model", TIED, "--dataset", TEXT, "--strategy", strategy),
            *("--batch-size", "16", "--micro-batches", "2", "--steps", "4", "--seed", "3"),
            *("--log-norms", "1", "--out", str(out)),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        return [line for line in lines if "gradient_norm" in line]

    sharded, alone = logged(2, "fsdp"), logged(1, "sequential")
    assert len(sharded) == 4
    for one, another in zip(sharded, alone, strict=True):
        assert one == pytest.approx(another, rel=1e-5)
    found, expected = (export_weights(tmp_path / name).tensors for name in ("fsdp", "sequential"))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def test_a_parameter_that_one_rank_no_longer_uses_is_refused_in_a_sentence(tmp_path: Path) -> None:
    said = refusal(2, case("later_unused_matrix", "fsdp", **ONE_EACH), tmp_path)
    assert "rank 1, step 1: a parameter that was used in the rehearsal had no gradient" in said
    assert "use another strategy than fsdp" in said
