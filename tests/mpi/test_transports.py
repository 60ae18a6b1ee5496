"""Whatever carries the messages, the weights are the same and no fault is a hang."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.mpi.ranks import mpirun
from tests.mpi.test_exactness import GPT, MLP, RESNET, case, reference_sha256, train_cases
from tests.mpi.test_failures import LIMIT_SECONDS, left_behind, sentences, write_plan

pytestmark = pytest.mark.mpi

ENDED_WITHIN_SECONDS = 120.0
"""A whole command with the start of its ranks on a crowded machine; a hang lasts 600 s."""


@pytest.mark.parametrize("stages", [2, 3])
def test_torch_ends_in_the_weights_of_mpi_and_of_the_definition(
    stages: int, tmp_path: Path
) -> None:
    cases = [
        case(model, strategy, stages, 3, 3, lead=2)
        for model in (MLP, RESNET, GPT)
        for strategy in ("fbp", "1f1b")
    ]
    over_mpi = train_cases(stages, [{**c, "transport": "mpi"} for c in cases], tmp_path)
    over_torch = train_cases(stages, [{**c, "transport": "torch"} for c in cases], tmp_path)
    threaded = train_cases(stages, [{**c, "progress_thread": True} for c in cases], tmp_path)
    for c, mpi, torch, thread in zip(cases, over_mpi, over_torch, threaded, strict=True):
        assert torch["weights_sha256"] == mpi["weights_sha256"] == thread["weights_sha256"]
        assert torch["bytes_sent"] == mpi["bytes_sent"]
        if c["strategy"] == "fbp":
            assert torch["weights_sha256"] == reference_sha256(c, stages)
    found = [o["settings"] for o in (over_mpi[0], over_torch[0], threaded[0])]
    assert [(s["transport"], s["progress_thread"]) for s in found] == [
        ("mpi", False),
        ("torch", False),
        ("mpi", True),
    ]


def test_gradients_and_activations_that_face_each_other_never_wait_for_each_other(
    tmp_path: Path,
) -> None:
    # Half a megabyte a message in both directions at once, under random sleeps.
    wide = {
        "model": "mlp,width=2000,layers=3",
        "dataset": "digits,size=8",
        "strategy": "fbp",
        "batch_size": 128,
        "micro_batches": 2,
        "steps": 6,
        "cuts": [0, 1, 3],
    }
    mpi, torch = train_cases(
        2,
        [{**wide, "transport": name, "sleep": True} for name in ("mpi", "torch")],
        tmp_path,
    )
    assert torch["bytes_sent"][0] == 12 * 64 * 2000 * 4
    assert torch["weights_sha256"] == mpi["weights_sha256"]


@pytest.mark.parametrize(
    ("fault", "options", "said"),
    [
        (
            "stop",
            ("--receive-timeout", str(LIMIT_SECONDS)),
            f"stage 0 (rank 0), micro-batch 3: no word from rank 1 for {LIMIT_SECONDS} s",
        ),
        ("forward", (), "stage 1 (rank 1), micro-batch 5, layer 2 third: ValueError: an odd pixel"),
        ("kill", (), None),
        ("exit", (), None),
    ],
)
def test_faults_end_all_ranks_over_torch_as_well(
    fault: str,
    options: tuple[str, ...],
    said: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(Path(__file__).with_name("faulty_model.py"), tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    command = [
        *("-m", "hpc_lpm", "train", "--model", f"faulty_model:make,fault={fault}"),
        *("--dataset", "digits,size=8", "--strategy", "fbp", "--batch-size", "8"),
        *("--micro-batches", "2", "--steps", "20", "--out", str(tmp_path / "run")),
        *("--plan", str(write_plan(tmp_path)), "--transport", "torch", *options),
    ]
    start = time.monotonic()
    done = mpirun(2, *command, timeout_seconds=2 * ENDED_WITHIN_SECONDS)
    assert time.monotonic() - start < ENDED_WITHIN_SECONDS
    assert not left_behind(str(tmp_path))
    assert done.returncode != 0
    assert not (tmp_path / "run" / "result.json").exists()
    spoken = sentences(done)
    if said is not None:
        assert spoken[0].startswith(f"hpc-lpm: {said}"), done.stderr
        return
    # Who notices first, mpirun or the neighbour, is a matter of luck.
    for sentence in spoken:
        assert "rank 1" in sentence, done.stderr
        assert sentence.endswith("."), done.stderr
    assert spoken or "rank 1" in done.stderr


def test_the_command_line_takes_the_transport(tmp_path: Path) -> None:
    command = [
        *(
            "-m",
            "hpc_lpm",
            "train",
            "--model",
            "mlp,width=8,layers=4",
            "--dataset",
            "digits,size=8",
        ),
        *("--strategy", "fbp", "--batch-size", "8", "--micro-batches", "2", "--steps", "2"),
        *(
            "--out",
            str(tmp_path / "run"),
            "--plan",
            str(write_plan(tmp_path)),
        ),
    ]
    done = mpirun(2, *command, "--progress-thread", timeout_seconds=ENDED_WITHIN_SECONDS)
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / "run" / "result.json").read_text())["settings"]
    assert (settings["transport"], settings["progress_thread"]) == ("mpi", True)
