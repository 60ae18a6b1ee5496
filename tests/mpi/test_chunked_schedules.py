"""Devices that hold several stages, or run halves of backwards apart, train as one device does."""

import os
from pathlib import Path

import pytest

from hpc_lpm.schedules.registry import SCHEDULES
from tests.mpi.one_process import check_alike, interrupt_case, play_case
from tests.mpi.plans import chunks_of
from tests.mpi.test_exactness import DATASETS, GPT, MLP, RESNET, layer_count, train_cases
from tests.mpi.test_outside_engines import MODELS
from tests.mpi.test_outside_engines import case as outside_case

pytestmark = pytest.mark.mpi

HERE = Path(__file__).parent
TIED = f"{GPT},tied=true"
DATASETS[TIED] = DATASETS[GPT]
ADAMW = {"name": "adamw", "lr": 0.02, "weight_decay": 0.1}
CHUNKED = [
    name
    for name in SCHEDULES.names()
    if SCHEDULES.named(name).chunks > 1 or SCHEDULES.named(name).splits_backward
]
FIGURES = ("weights_sha256", "train_loss", "test_accuracy")


@pytest.fixture(autouse=True)
def _models_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.syspath_prepend(str(HERE))


def case(model: str, strategy: str, devices: int, per_step: int, **more: object) -> dict:
    made = {
        "model": model,
        "dataset": DATASETS[model],
        "strategy": strategy,
        "batch_size": 4 * per_step,
        "micro_batches": per_step,
        "steps": 3,
        "seed": 3,
        **more,
    }
    if strategy != "sequential":
        layers, stages = layer_count(model), devices * chunks_of(made)
        made["cuts"] = [layers * stage // stages for stage in range(stages + 1)]
    return made


def alone(of_devices: dict, folder: Path) -> dict:
    """What one device makes of a case."""
    dropped = ("cuts", "chunks", "transport")
    same = {name: value for name, value in of_devices.items() if name not in dropped}
    folder.mkdir(parents=True)
    (outcome,) = train_cases(1, [{**same, "strategy": "sequential"}], folder)
    return outcome


def check_figures(got: dict, expected: dict) -> None:
    for figure in FIGURES:
        assert got[figure] == expected[figure], (figure, got["settings"])


@pytest.mark.parametrize("schedule", CHUNKED)
def test_every_schedule_ends_in_the_bits_of_one_device(schedule: str, tmp_path: Path) -> None:
    cases = [
        (3, case(RESNET, schedule, 3, 7, optimizer=ADAMW)),
        (2, case(GPT, schedule, 2, 5)),
        (1, case(MLP, schedule, 1, 3)),
        (2, case(TIED, schedule, 2, 2, optimizer=ADAMW)),
        (2, case(GPT, schedule, 2, 4, precision="bf16")),
        (2, case(MLP, schedule, 2, 3, clip_norm=0.05)),
        (2, case(MLP, schedule, 2, 4, clip_norm=0.05, non_finite="skip")),
        (
            2,
            {
                **case(MLP, schedule, 2, 3),
                "last_batch": "keep",
                "steps": None,
                "epochs": 1,
                "batch_size": 510,
            },
        ),
    ]
    for number, (devices, each) in enumerate(cases):
        played = play_case(devices, each, tmp_path / f"played-{number}")
        check_figures(played, alone(each, tmp_path / f"alone-{number}"))


@pytest.mark.parametrize("schedule", CHUNKED)
def test_odd_models_train_in_chunks_as_on_one_device(schedule: str, tmp_path: Path) -> None:
    devices = 4 // SCHEDULES.named(schedule).chunks
    for model in MODELS:
        each = outside_case(model, schedule, 4)
        played = play_case(devices, each, tmp_path / model)
        check_figures(played, alone(each, tmp_path / f"alone-{model}"))


@pytest.mark.parametrize("transport", ["mpi", "torch"])
def test_ranks_end_in_the_bits_of_one_process_that_plays_them(
    transport: str, tmp_path: Path
) -> None:
    cases = [
        case(RESNET, schedule, 3, 4 + number, optimizer=ADAMW)
        for number, schedule in enumerate(CHUNKED)
    ]
    cases += [case(TIED, schedule, 3, 3, steps=2) for schedule in CHUNKED[:2]]
    cases += [case(RESNET, "interleaved-1f1b", 3, 4, chunks=3, sleep=True)]
    on_ranks = train_cases(3, [{**each, "transport": transport} for each in cases], tmp_path)
    for number, (each, outcome) in enumerate(zip(cases, on_ranks, strict=True)):
        check_alike(play_case(3, each, tmp_path / f"played-{number}"), outcome)


def test_replicas_of_devices_with_chunks_average_their_gradients(tmp_path: Path) -> None:
    cases = [case(GPT, schedule, 2, 4, batch_size=32) for schedule in CHUNKED]
    on_ranks = train_cases(4, [dict(each) for each in cases], tmp_path)
    for number, (each, outcome) in enumerate(zip(cases, on_ranks, strict=True)):
        check_alike(play_case(4, each, tmp_path / f"played-{number}"), outcome)
        # An average of two is what 1F1B takes of two replicas as well.
        of_1f1b = case(GPT, "1f1b", 2, 4, batch_size=32)
        same = play_case(4, of_1f1b, tmp_path / f"1f1b-{number}")
        assert outcome["weights_sha256"] == same["weights_sha256"]


@pytest.mark.parametrize("schedule", CHUNKED)
def test_an_interrupted_run_ends_in_the_bits_of_an_undisturbed_one(
    schedule: str, tmp_path: Path
) -> None:
    each = case(RESNET, schedule, 2, 3, steps=14, optimizer=ADAMW)
    undisturbed = play_case(2, each, tmp_path / "undisturbed")
    interrupt_case(2, each, tmp_path / "resumed", updates=6)
    resumed = play_case(2, each, tmp_path / "resumed", resume=True)
    assert resumed["weights_sha256"] == undisturbed["weights_sha256"]
    # On other devices.
    interrupt_case(2, each, tmp_path / "moved", updates=6)
    other = case(RESNET, schedule, 3, 3, steps=14, optimizer=ADAMW)
    moved = play_case(3, other, tmp_path / "moved", resume=True)
    assert moved["weights_sha256"] == undisturbed["weights_sha256"]
