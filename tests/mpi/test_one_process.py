"""One process that plays K ranks ends in the very bits of K ranks."""

import os
from pathlib import Path

import pytest

from tests.mpi.one_process import check_alike, interrupt_case, play_case
from tests.mpi.peculiar_models import LAYERS
from tests.mpi.test_exactness import (
    DATASETS,
    GPT,
    MLP,
    RESNET,
    case,
    cuts_of,
    layer_count,
    train_cases,
)
from tests.mpi.test_resume import once, run_cases
from tests.mpi.test_update_rules import SKIPPING, SPOILED

pytestmark = pytest.mark.mpi

HERE = Path(__file__).parent
TIED = "gpt,layers=2,width=16,heads=2,dropout=0.2,tied=true"
DATASETS[TIED] = DATASETS[GPT]
ADAMW = {"name": "adamw", "lr": 0.02, "weight_decay": 0.1}
MUON = {"name": "muon", "lr": 0.01, "lr_scale": ["*bias=0.5"]}
COSINE = {"schedule": "cosine", "warmup_steps": 2}
KEPT = {"last_batch": "keep", "steps": None, "epochs": 1, "batch_size": 510}
BF16 = {"precision": "bf16"}
BY_LAST = {"prediction": True, "prediction_rule": "last-update"}
PREDICTED = {"prediction": True, "optimizer": ADAMW, "learning_rate": COSINE}


@pytest.fixture(autouse=True)
def _models_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.syspath_prepend(str(HERE))


def check(ranks: int, cases: list[dict], folder: Path) -> list[dict]:
    """Train all cases both ways and return what came out."""
    folder.mkdir(exist_ok=True)
    on_ranks = train_cases(ranks, [dict(c) for c in cases], folder)
    for number, (c, outcome) in enumerate(zip(cases, on_ranks, strict=True)):
        check_alike(play_case(ranks, c, folder / f"played-{number}"), outcome)
    return on_ranks


def peculiar(model: str, stages: int, strategy: str, **more: object) -> dict:
    layers = LAYERS[model]
    cuts = [0, *range(1, stages), layers] if stages <= layers else [0, layers]
    own = {"model": f"peculiar_models:{model}", "dataset": "digits,size=8", "cuts": cuts}
    return {**case(MLP, strategy, stages, 3, 3), **own, "optimizer": ADAMW, **more}


def test_every_schedule_and_policy_is_played_on_three_stages(tmp_path: Path) -> None:
    cases = [
        case(RESNET, "fbp", 3, 3, 4, lead=2),
        case(GPT, "fbp", 3, 2, 5, weights="live", lead=2, optimizer=ADAMW),
        case(GPT, "fbp", 3, 1, 4, weights="stash"),
        case(RESNET, "fbp", 3, 5, 3, weights="stash", memory_format="channels_last"),
        case(GPT, "1f1b", 3, 3, 3, optimizer=ADAMW),
        case(RESNET, "gpipe", 3, 4, 3, clip_norm=0.05),
        case(MLP, "naive", 3, 2, 3, loader_workers=1),
        case(TIED, "fbp", 3, 3, 4, weights="live", **PREDICTED),
        case(TIED, "fbp", 3, 2, 4, optimizer=MUON),
    ]
    check(3, cases, tmp_path)


def test_precision_and_whatever_else_a_run_may_ask_for_is_played_alike(tmp_path: Path) -> None:
    cases = [
        {**case(RESNET, "fbp", 2, 3, 3, memory_format="channels_last", **BF16), **KEPT},
        case(GPT, "fbp", 2, 4, 4, weights="live", **BF16),
        case(GPT, "1f1b", 2, 4, 3, **BF16, optimizer=MUON),
        case(MLP, "fbp", 2, 3, 8, clip_norm=0.05, lr_discount=True, lead=2),
        case(MLP, "fbp", 2, 3, 8, synchronous_head="2steps", synchronous_tail="25%"),
        case(MLP, "fbp", 2, 4, 6, drain_at=[2, 5], checkpoint_steps=3),
        case(RESNET, "fbp", 2, 3, 4, prediction=True, lead=2),
        case(GPT, "fbp", 2, 2, 5, weights="stash", prediction_rule="last-update", **PREDICTED),
        case(SPOILED, "fbp", 2, 3, 6, cuts=[0, 2, 4], **SKIPPING, **BY_LAST),
        case(SPOILED, "gpipe", 2, 3, 6, cuts=[0, 2, 4], **SKIPPING),
        case(MLP, "fbp", 2, 3, 4, boundary_shapes="sent"),
    ]
    outcomes = check(2, cases, tmp_path)
    skipped = [o["skipped_updates"] for o in outcomes if o["model"] == SPOILED]
    assert skipped == [[2, 0], [2, 2]]


def test_whatever_a_model_of_ones_own_does_is_played_alike(tmp_path: Path) -> None:
    policies = ("replay", "live", "stash")
    cases = [
        peculiar(name, 2, "fbp", weights=policies[number % 3]) for number, name in enumerate(LAYERS)
    ]
    check(2, [c for c in cases if len(c["cuts"]) == 3], tmp_path)


def test_one_stage_and_a_stage_for_every_layer_are_played_alike(tmp_path: Path) -> None:
    one = [case(GPT, "fbp", 1, 3, 3), case(RESNET, "gpipe", 1, 2, 3)]
    check(1, one, tmp_path / "one")
    layers = layer_count(MLP)
    each = [case(MLP, name, layers, 2, 4, cuts=list(range(layers + 1))) for name in ("fbp", "1f1b")]
    check(layers, each, tmp_path / "each")


def test_two_replicas_of_every_stage_are_played_alike(tmp_path: Path) -> None:
    cases = [
        case(RESNET, "fbp", 2, 3, 3, batch_size=24),
        case(TIED, "fbp", 2, 2, 4, batch_size=16, weights="live", **PREDICTED),
        case(GPT, "1f1b", 2, 2, 3, batch_size=16, clip_norm=0.1),
        case(MLP, "fbp", 2, 2, 4, batch_size=16, weights="stash", last_batch="keep"),
    ]
    check(4, cases, tmp_path)


def test_what_one_process_has_begun_ranks_end_and_the_other_way_round(tmp_path: Path) -> None:
    run = case(TIED, "fbp", 2, 3, 12, weights="live", lead=2, **PREDICTED)
    begun_here, begun_there = str(tmp_path / "here"), str(tmp_path / "there")
    interrupt_case(2, run, Path(begun_here), 5)
    stopped = {**run, "folder": begun_there, "interrupt": once(0, 4)}
    ended_there, interrupted = run_cases(
        2, [{**run, "folder": begun_here, "resume": True}, stopped], tmp_path
    )
    assert "checkpoint saved in" in interrupted["stopped"]
    ended_here = play_case(2, run, Path(begun_there), resume=True)
    for number, outcome in enumerate((ended_there, ended_here)):
        assert outcome["interruptions"] == 1
        assert len(outcome["drains"]) == 1
        whole = {**run, "drain_at": outcome["drains"]}
        check_alike(play_case(2, whole, tmp_path / f"whole-{number}"), outcome)


def test_a_run_goes_on_at_another_number_of_stages_with_the_directions_of_its_updates(
    tmp_path: Path,
) -> None:
    """A head that flushes ends in the same bits on any number of stages, directions included."""
    runs = [
        case(TIED, "fbp", 3, 2, 9, weights="live", lead=2, **PREDICTED),
        case(RESNET, "fbp", 3, 2, 9, weights="stash", **BY_LAST),
        case(MLP, "fbp", 3, 2, 9, **{**PREDICTED, "optimizer": MUON}),
    ]
    for number, of_three in enumerate({**run, "synchronous_head": "6steps"} for run in runs):
        folder = tmp_path / str(number)
        of_two = {**of_three, "cuts": cuts_of(of_three["model"], 2)}
        interrupt_case(2, of_two, folder, 2)
        resumed = play_case(3, of_three, folder, resume=True)
        whole = play_case(3, of_three, tmp_path / f"whole-{number}")
        assert whole["drains"] == [6]
        assert len(resumed["drains"]) == 2, "one of them inside the head"
        assert resumed["weights_sha256"] == whole["weights_sha256"]
        assert resumed["train_loss"] == whole["train_loss"]
        unpredicted = {**of_three, "prediction": False, "prediction_rule": None}
        plain = play_case(3, unpredicted, tmp_path / f"plain-{number}")
        assert plain["weights_sha256"] != whole["weights_sha256"]
