"""Stages on GPUs; two ranks share one device where there is only one."""

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from hpc_lpm.planning.plan import Plan, StagePlan
from tests.mpi.ranks import mpirun

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.mpi,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

WIDTH, STEPS = 256, 4


@pytest.fixture(autouse=True)
def _reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    # cuBLAS then adds up in the same order every time.
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def train(folder: Path, strategy: str, *options: str, steps: int = STEPS) -> dict[str, Any]:
    command: list[str] = [
        *("-m", "hpc_lpm", "train", "--model", f"mlp,width={WIDTH},layers=4"),
        *("--dataset", "digits,size=8", "--strategy", strategy, "--batch-size", "32"),
        *("--micro-batches", "4", "--steps", str(steps)),
        *("--out", str(folder / "run"), *options),
    ]
    if strategy == "sequential":
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, timeout=300, check=False
        )
    else:
        done = mpirun(2, *command, "--plan", str(write_plan(folder, (0, 2, 4))))
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text())
    return result


def write_plan(folder: Path, cuts: Sequence[int]) -> Path:
    path = folder / "plan.json"
    Plan(
        planner="by hand",
        model="mlp",
        stages=tuple(
            StagePlan(start=a, stop=b, compute_seconds=0, send_bytes=0, memory_bytes=0)
            for a, b in pairwise(cuts)
        ),
        period_seconds=0,
        boundary_bytes=0,
        profile_sha256="",
    ).write(path)
    return path


@pytest.mark.parametrize("transport", ["mpi", "torch"])
def test_a_flushing_schedule_is_sequential_training_bit_for_bit(
    transport: str, tmp_path: Path
) -> None:
    alone = train(tmp_path, "sequential")
    staged = train(tmp_path, "1f1b", "--transport", transport)
    assert staged["weights_sha256"] == alone["weights_sha256"]
    assert staged["train_loss"] == alone["train_loss"]


@pytest.mark.parametrize("transport", ["mpi", "torch"])
def test_before_anything_lags_fbp_is_sequential_training_bit_for_bit(
    transport: str, tmp_path: Path
) -> None:
    alone = train(tmp_path, "sequential", steps=1)
    staged = train(tmp_path, "fbp", "--transport", transport, steps=1)
    assert staged["weights_sha256"] == alone["weights_sha256"]


def test_fbp_does_not_depend_on_the_transport(tmp_path: Path) -> None:
    hashes = {
        train(tmp_path, "fbp", "--transport", transport)["weights_sha256"]
        for transport in ("mpi", "torch", "mpi")
    }
    assert len(hashes) == 1


def test_bf16_on_two_stages_is_bf16_on_one_bit_for_bit(tmp_path: Path) -> None:
    precision = ("--precision", "bf16")
    alone = train(tmp_path, "sequential", *precision)
    assert train(tmp_path, "1f1b", *precision)["weights_sha256"] == alone["weights_sha256"]
    assert alone["weights_sha256"] != train(tmp_path, "sequential")["weights_sha256"]


def test_rules_for_gradients_and_groups_on_two_stages_are_those_on_one(tmp_path: Path) -> None:
    rules = (
        *("--clip-norm", "0.05", "--non-finite", "skip", "--log-norms", "1"),
        *("--weight-decay", "0.1", "--no-decay", "norm-and-bias", "--lr-scale", "output.*=2"),
    )
    alone = train(tmp_path, "sequential", *rules)
    assert train(tmp_path, "1f1b", *rules)["weights_sha256"] == alone["weights_sha256"]
    assert alone["weights_sha256"] != train(tmp_path, "sequential")["weights_sha256"]


def test_memory_is_the_devices_and_busy_time_within_the_training_time(tmp_path: Path) -> None:
    result = train(tmp_path, "fbp")
    parameters = 4 * WIDTH * (64 + WIDTH)
    for peak, idle in zip(result["peak_memory_bytes"], result["idle_share"], strict=True):
        assert parameters < peak < 2**30, "weights, but not the process with all its libraries"
        assert 0 <= idle < 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs")
def test_ranks_with_a_gpu_each_send_over_nccl(tmp_path: Path) -> None:
    over_nccl = train(tmp_path, "fbp")
    assert over_nccl["settings"]["transport"] == "torch"
    over_mpi = train(tmp_path, "fbp", "--transport", "mpi")
    assert over_nccl["weights_sha256"] == over_mpi["weights_sha256"]
    assert over_nccl["bytes_sent"] == over_mpi["bytes_sent"]


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="there are several GPUs")
def test_ranks_that_share_a_gpu_send_over_mpi_by_default(tmp_path: Path) -> None:
    assert train(tmp_path, "fbp")["settings"]["transport"] == "mpi"
    # Stock DeepSpeed sends device memory over NCCL alone, which refuses two ranks on one device.
    command = [
        *("-m", "hpc_lpm", "train", "--model", "mlp,width=8,layers=4", "--dataset", "digits"),
        *("--strategy", "deepspeed-1f1b", "--steps", "1", "--out", str(tmp_path / "stock")),
        *("--plan", str(write_plan(tmp_path, (0, 2, 4)))),
    ]
    refused = mpirun(2, *command)
    assert refused.returncode == 2
    assert "needs a GPU for every rank" in refused.stderr
