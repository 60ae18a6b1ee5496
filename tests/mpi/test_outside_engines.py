"""Outside engines train the function of one device, or refuse before they train."""

import json
from pathlib import Path

import pytest
import torch

from tests.mpi.ranks import mpirun
from tests.mpi.test_exactness import train_cases

pytestmark = pytest.mark.mpi

GPT = "gpt,layers=2,width=16,heads=2,dropout=0.2"
TIED = f"{GPT},tied=true"
TEXT = f"text:{Path(torch.__file__).parent / 'functional.py'},sequence=16"
EVERYWHERE_ALIKE = [
    "nothing_learns_first",
    "detached",
    "unused",
    "auxiliary",
    "twice_the_same",
    "nothing_reaches_the_loss",
]
"""Models that a replica may see a part of a batch of: no layer looks at several samples."""
MODELS = [*EVERYWHERE_ALIKE, "anything", "mixed_types", "random_draws", "sparse_gradients"]
DATA_PARALLEL = ["horovod", "ddp"]
PIPELINES = ["deepspeed-1f1b", "torch-1f1b", "torch-gpipe"]
LAYERS = {"mixed_types": 6}


def case(model: str, strategy: str, stages: int = 1, **more: object) -> dict:
    layers = LAYERS.get(model, 4)
    cuts = [0, 2, layers] if stages == 2 else [0, 1, 2, 3, layers]
    of_text = {"model": model, "dataset": TEXT} if model in (GPT, TIED) else {}
    return {
        "model": f"outside_models:{model}",
        "dataset": "digits,size=8",
        "strategy": strategy,
        # Evaluation ends with a smaller micro-batch: 360 samples are not a multiple of 7.
        "batch_size": 28,
        "micro_batches": 4,
        "steps": 5,
        "seed": 3,
        "optimizer": {"name": "momentum", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
        **({"cuts": cuts} if stages > 1 else {}),
        **more,
        **of_text,
    }


def refusal(ranks: int, refused: dict, folder: Path) -> str:
    """What is said where a run ends with an error, which costs the ranks."""
    with pytest.raises(AssertionError) as raised:
        train_cases(ranks, [refused], folder)
    return str(raised.value)


def refused_alike(ranks: int, case: dict, folder: Path) -> str:
    """What all ranks say of bad input, which they outlive: new ones take long to start."""
    (outcome,) = train_cases(ranks, [{**case, "refused": True}], folder)
    said = outcome["refused"]
    assert len(said) == ranks
    assert len(set(said)) == 1
    return str(said[0])


def test_stock_pipelines_are_sequential_training_bit_for_bit(tmp_path: Path) -> None:
    cases = [case(model, engine, 4) for engine in PIPELINES for model in MODELS]
    cut = train_cases(4, cases, tmp_path)
    alone = train_cases(1, [case(model, "sequential") for model in MODELS], tmp_path)
    for model, got, expected in zip(MODELS * 3, cut, alone * 3, strict=True):
        for figure in ("weights_sha256", "train_loss", "test_accuracy"):
            assert got[figure] == expected[figure], (model, figure)


def test_pytorchs_pipelines_of_chunks_are_sequential_training_bit_for_bit(tmp_path: Path) -> None:
    # Of what learns nothing, ZB-V is told zeros; it must see how what crosses comes about.
    seen = ["mixed_types", "random_draws", "sparse_gradients"]
    models = [*MODELS, *seen]
    cases = [case(model, "torch-interleaved", 4) for model in MODELS]
    cases += [case(model, "torch-zb", 4) for model in seen]
    cut = train_cases(2, cases, tmp_path)
    alone = train_cases(1, [case(model, "sequential") for model in models], tmp_path)
    for model, got, expected in zip(models, cut, alone, strict=True):
        for figure in ("weights_sha256", "train_loss", "test_accuracy"):
            assert got[figure] == expected[figure], (model, figure)


def test_without_a_plan_a_model_is_only_cut_where_pytorchs_zero_bubble_trains_it(
    tmp_path: Path,
) -> None:
    # Two tensors cross inside of every residual block.
    hashes = []
    for ranks, strategy in ((2, "torch-zb"), (1, "sequential")):
        out = tmp_path / strategy
        done = mpirun(
            ranks,
            *("-m", "hpc_lpm", "train", "--model", "resnet20", "--dataset", "digits,size=8"),
            *("--strategy", strategy, "--batch-size", "28", "--micro-batches", "4"),
            *("--steps", "2", "--lr", "0.05", "--out", str(out)),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        hashes.append(json.loads((out / "result.json").read_text())["weights_sha256"])
    assert hashes[0] == hashes[1]


def test_pytorchs_pipelines_of_chunks_refuse_what_they_would_train_otherwise(
    tmp_path: Path,
) -> None:
    said = refused_alike(2, case("auxiliary", "torch-zb", 4), tmp_path)
    assert "--strategy torch-zb was given a plan that cuts behind layer" in said
    assert "crosses and not exactly one floating-point tensor with a gradient" in said
    said = refused_alike(2, case("unused", "torch-interleaved", 4, micro_batches=7), tmp_path)
    assert "--micro-batches is 7 with a plan for 2 devices" in said


def test_stock_deepspeed_averages_over_replicas_what_any_of_them_has(tmp_path: Path) -> None:
    cases = [
        case(model, strategy, 2, batch_size=56)
        for model in MODELS
        for strategy in ("gpipe", "deepspeed-1f1b")
    ]
    outcomes = iter(train_cases(4, cases, tmp_path))
    for model, ours, stock in zip(MODELS, outcomes, outcomes, strict=True):
        assert stock["weights_sha256"] == ours["weights_sha256"], model


@pytest.mark.parametrize("cuts", [[0, 1, 4], [0, 2, 4]])
def test_stock_pipelines_clip_stages_without_gradients(cuts: list[int], tmp_path: Path) -> None:
    clipped = {"clip_norm": 0.1, "clip_scope": "global"}
    models, engines = ["nothing_learns_first", "detached"], ["deepspeed-1f1b", "torch-1f1b"]
    cases = [case(m, engine, 2, **clipped, cuts=cuts) for engine in engines for m in models]
    stock = train_cases(2, cases, tmp_path)
    alone = train_cases(1, [case(m, "sequential", clip_norm=0.1) for m in models], tmp_path) * 2
    for got, expected in zip(stock, alone, strict=True):
        assert got["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5)


def test_stock_deepspeed_clips_gradients_of_all_types_and_shapes(tmp_path: Path) -> None:
    clipped = {"clip_norm": 0.1, "clip_scope": "global"}
    (stock,) = train_cases(2, [case("mixed_types", "deepspeed-1f1b", 2, **clipped)], tmp_path)
    clipped_alone, free = train_cases(
        1,
        [case("mixed_types", "sequential", clip_norm=norm) for norm in (0.1, None)],
        tmp_path,
    )
    assert stock["train_loss"] == pytest.approx(clipped_alone["train_loss"], rel=1e-4)
    assert stock["train_loss"] != pytest.approx(free["train_loss"], rel=1e-2)


@pytest.mark.parametrize(
    ("engine", "named"), [("deepspeed-1f1b", "DeepSpeed"), ("torch-gpipe", "PyTorch's pipeline")]
)
def test_stock_pipelines_refuse_what_varies_between_micro_batches(
    engine: str, named: str, tmp_path: Path
) -> None:
    said = refused_alike(2, case("varying", engine, 2), tmp_path)
    assert said.startswith(f"--strategy {engine} was given a plan that cuts behind layer 1")
    said = refusal(2, case("later_varying", engine, 2), tmp_path)
    assert "stage 0 (rank 0), micro-batch 2, layer 1 part1: the layer, the stage's last" in said
    assert f"{named} only sends what is of one kind" in said


def test_pytorchs_pipelines_refuse_replicas_and_too_few_micro_batches(tmp_path: Path) -> None:
    said = refused_alike(4, case("unused", "torch-gpipe", 2, batch_size=56), tmp_path)
    assert "started on 4 ranks with a plan of 2 stages, but trains one replica" in said
    said = refused_alike(2, case("unused", "torch-1f1b", 2, micro_batches=1), tmp_path)
    assert "--micro-batches is 1 with a plan of 2 stages, but PyTorch's pipeline takes" in said


@pytest.mark.parametrize("strategy", DATA_PARALLEL)
def test_data_parallel_ranks_with_a_micro_batch_each_are_sequential_training_bit_for_bit(
    strategy: str, tmp_path: Path
) -> None:
    # Where each of two ranks has one micro-batch of a step, the order of sums is that of one rank.
    models = [*EVERYWHERE_ALIKE, GPT, TIED]
    adamw = {"name": "adamw", "lr": 0.05, "weight_decay": 0.01}
    more = {"micro_batches": 2, "optimizer": adamw}
    apart = train_cases(2, [case(model, strategy, **more) for model in models], tmp_path)
    alone = train_cases(1, [case(model, "sequential", **more) for model in models], tmp_path)
    for model, got, expected in zip(models, apart, alone, strict=True):
        assert got["weights_sha256"] == expected["weights_sha256"], model
        assert got["test_accuracy"] == expected["test_accuracy"], model


def test_horovod_refuses_parameters_of_types_that_it_cannot_average(tmp_path: Path) -> None:
    said = refusal(2, case("mixed_types", "horovod"), tmp_path)
    assert "layer 2 part2 has the parameter scale of type bfloat16, which Horovod cannot" in said


def test_data_parallel_ranks_of_several_micro_batches_train_as_one_device(tmp_path: Path) -> None:
    # Which of two ranks adds up which micro-batches rounds differently, and nothing else does.
    models = [*EVERYWHERE_ALIKE, "varying", "sparse_gradients", GPT]
    cases = [case(model, "ddp", bucket_megabytes=0.001) for model in models]
    apart = train_cases(2, cases, tmp_path)
    alone = train_cases(1, [case(model, "sequential") for model in models], tmp_path)
    for model, got, expected in zip(models, apart, alone, strict=True):
        assert got["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4), model


def test_ddp_averages_gradients_of_all_types(tmp_path: Path) -> None:
    more = {"micro_batches": 2}
    (apart,) = train_cases(2, [case("mixed_types", "ddp", **more)], tmp_path)
    (alone,) = train_cases(1, [case("mixed_types", "sequential", **more)], tmp_path)
    assert apart["weights_sha256"] == alone["weights_sha256"]


def test_ddp_refuses_a_parameter_that_only_some_micro_batches_use(tmp_path: Path) -> None:
    said = refusal(2, case("later_unused", "ddp", micro_batches=2), tmp_path)
    assert "step 1: a parameter that was used in the rehearsal had no gradient" in said
    assert "use another strategy than ddp" in said


def test_one_process_with_several_threads_trains_the_function_of_one_thread(tmp_path: Path) -> None:
    several, one = train_cases(
        1, [case(GPT, "intraop", threads=2), case(GPT, "sequential")], tmp_path
    )
    assert several["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    assert several["settings"]["threads"] == 2
