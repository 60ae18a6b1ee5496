"""Asynchronous rivals end in the bits of the equations of their papers."""

from pathlib import Path

import pytest
import torch

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from tests.mpi.one_process import check_alike, interrupt_case, play_case
from tests.mpi.recurrence import fingerprint
from tests.mpi.rival_references import REFERENCES, Rival
from tests.mpi.test_exactness import DATASETS, GPT, MLP, case, layer_count, train_cases

pytestmark = pytest.mark.mpi

NAMES = list(REFERENCES)
ADAMW = {"name": "adamw", "lr": 0.02, "weight_decay": 0.1}
MOMENTUM = {"name": "momentum", "lr": 0.1, "momentum": 0.9}
OPTIMIZERS = {"adamw": torch.optim.AdamW, "momentum": torch.optim.SGD}
MICRO_BATCH = 4
TIED = "gpt,layers=2,width=16,heads=2,dropout=0.2,tied=true"
DATASETS[TIED] = DATASETS[GPT]
OF_FBP = {
    "pipedream": {"lead": 1, "weights": "stash"},
    "ddg": {"lead": 1, "weights": "stash"},
    "fr": {"lead": 1, "weights": "replay"},
    "fdg": {"lead": 2, "weights": "stash"},
}


def expected_sha256(case: dict, **changes: object) -> str:
    """Weights after the reference, on the micro-batches that the seed's order gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        dataset = load_dataset(case["dataset"])
        generator = torch.Generator().manual_seed(case["seed"] * 1_000_003)
        order = torch.randperm(len(dataset.train), generator=generator)
        chunks = torch.split(order, MICRO_BATCH)[
            : case["batch_size"] * case["steps"] // MICRO_BATCH
        ]
        named = dict(case["optimizer"])
        kind = OPTIMIZERS[named.pop("name")]
        rival = Rival(
            create_model(case["model"], dataset.shape),
            case["cuts"],
            [dataset.train.inputs(chunk) for chunk in chunks],
            [dataset.train.targets(chunk) for chunk in chunks],
            M=case["micro_batches"],
            seed=case["seed"],
            optimizer=lambda parameters: kind(parameters, **named),
        )
        if case["strategy"] == "fdg":
            changes["beta"] = case.get("gradient_shrink", 0.5)
        return fingerprint(REFERENCES[case["strategy"]](rival, **changes))
    finally:
        torch.set_num_threads(threads)


def rival_case(name: str, stages: int, per_step: int, model: str = MLP, **more: object) -> dict:
    given = {"optimizer": ADAMW if (stages + per_step) % 2 else MOMENTUM, **more}
    return case(model, name, stages, per_step, 12 if per_step < 3 else 6, **given)


def cells(name: str) -> list[tuple[int, int]]:
    """Stages and micro-batches a step that a rival takes."""
    every = [(stages, per_step) for stages in (1, 2, 3, 4) for per_step in (1, 2, 4)]
    return [each for each in every if name != "pipedream-2bw" or each[1] >= each[0]]


@pytest.mark.parametrize("name", NAMES)
def test_a_rival_ends_in_the_bits_of_its_papers_equation(name: str, tmp_path: Path) -> None:
    assert layer_count(MLP) >= 4
    for stages, per_step in cells(name):
        c = rival_case(name, stages, per_step)
        played = play_case(stages, c, tmp_path / f"{stages}-{per_step}")
        assert played["weights_sha256"] == expected_sha256(c), (stages, per_step)


@pytest.mark.parametrize("name", NAMES)
def test_a_rival_trains_dropout_and_attention_as_its_equation_says(
    name: str, tmp_path: Path
) -> None:
    c = rival_case(name, 3, 4, GPT, optimizer=ADAMW)
    assert play_case(3, c, tmp_path)["weights_sha256"] == expected_sha256(c)


def test_rivals_on_real_ranks_end_in_the_same_bits(tmp_path: Path) -> None:
    cases = [rival_case(name, 3, 4 if "2bw" in name else 1) for name in NAMES]
    for c, outcome in zip(cases, train_cases(3, [dict(c) for c in cases], tmp_path), strict=True):
        assert outcome["weights_sha256"] == expected_sha256(c), c["strategy"]


def test_the_factor_of_fdg_counts_at_every_hop_and_one_changes_nothing(tmp_path: Path) -> None:
    outcomes = {}
    for factor in (1.0, 0.25):
        c = rival_case("fdg", 3, 2, gradient_shrink=factor)
        outcomes[factor] = play_case(3, c, tmp_path / str(factor))["weights_sha256"]
        assert outcomes[factor] == expected_sha256(c)
    unshrunk = rival_case("fbp", 3, 2, **OF_FBP["fdg"])
    assert outcomes[1.0] == play_case(3, unshrunk, tmp_path / "fbp")["weights_sha256"]
    assert outcomes[0.25] != outcomes[1.0]


def test_with_messages_the_order_of_fbp_is_that_of_ddg_and_features_replay(tmp_path: Path) -> None:
    """The iterations of DDG and Features Replay, whose forwards wait for one another there."""
    for name in ("pipedream", "ddg", "fr"):
        given = {"micro_batches": 3, "optimizer": ADAMW, "batch_size": 3 * MICRO_BATCH}
        rival = play_case(3, rival_case(name, 3, 3, TIED, **given), tmp_path / name)
        fbp = rival_case("fbp", 3, 3, TIED, **{**given, **OF_FBP[name]})
        check_alike(rival, play_case(3, fbp, tmp_path / f"fbp-{name}"))


def test_equations_differ_but_those_of_pipedream_and_ddg() -> None:
    # Four micro-batches a step: the versions of PipeDream-2BW are others at one stage alone.
    found = {name: expected_sha256(rival_case(name, 3, 4)) for name in NAMES}
    assert found["pipedream"] == found["ddg"]
    assert len(set(found.values())) == len(NAMES) - 1


def test_two_replicas_average_the_gradients_of_the_equation(tmp_path: Path) -> None:
    for name in ("pipedream", "pipedream-2bw"):
        c = rival_case(name, 2, 4, batch_size=2 * 4 * MICRO_BATCH)
        played = play_case(4, c, tmp_path / name)
        assert played["replicas"] == 2
        assert played["weights_sha256"] == expected_sha256(c, replicas=2), name


def test_under_two_buffers_every_micro_batch_but_those_of_the_first_step_lags_by_one(
    tmp_path: Path,
) -> None:
    played = play_case(3, rival_case("pipedream-2bw", 3, 4), tmp_path)
    assert played["lag_counts"] == 3 * [{"0": 4, "1": 5 * 4}]


def test_two_buffers_begin_anew_where_training_drains(tmp_path: Path) -> None:
    c = rival_case("pipedream-2bw", 3, 4, drain_at=[2, 5])
    drained = expected_sha256(c, drains=(2, 5))
    assert play_case(3, c, tmp_path)["weights_sha256"] == drained
    assert drained != expected_sha256(c)


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_rival_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    run = rival_case(name, 2, 2)
    interrupt_case(2, run, tmp_path / "run", 5)
    resumed = play_case(2, run, tmp_path / "run", resume=True)
    assert resumed["interruptions"] == 1
    assert len(resumed["drains"]) == 1
    whole = {**run, "drain_at": resumed["drains"]}
    check_alike(resumed, play_case(2, whole, tmp_path / "whole"))
