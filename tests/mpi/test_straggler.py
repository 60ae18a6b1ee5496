"""A rank that becomes slow while the others wait for it is named in the log and in the result."""

import json
import math
import time
from pathlib import Path

import pytest

from hpc_lpm.engine.stragglers import BLOCKS, SECONDS
from tests.mpi.ranks import start

pytestmark = pytest.mark.mpi

SLOW_FROM, STEPS = 120, 200
MICRO_BATCHES, FORWARD_SECONDS = 4, 0.02
IN_FLIGHT_STEPS = 3
"""By so many a rank may be ahead of what the log of metrics has."""
OWN = f"""
import time
from pathlib import Path
from torch import nn


class Device(nn.Module):
    def __init__(self, can_be_slow):
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.can_be_slow = can_be_slow

    def forward(self, x):
        slow = self.can_be_slow and Path("slow").exists()
        time.sleep({FORWARD_SECONDS} * (3 if slow else 1))
        return self.linear(x)


def model(shape):
    ends = nn.Sequential(nn.Flatten(), nn.Linear(64, 16)), nn.Linear(16, 10)
    return nn.Sequential(ends[0], Device(False), Device(True), ends[1])
"""


def steps_in(metrics: Path) -> int:
    """Return how many steps a log of metrics has."""
    return metrics.read_text().count("\n") if metrics.exists() else 0


def test_a_slow_rank_is_reported_with_its_factor_and_nobody_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_devices.py").write_text(OWN)
    log, metrics, flag = tmp_path / "log", tmp_path / "run" / "metrics.jsonl", tmp_path / "slow"
    with log.open("wb") as stream:
        launcher = start(
            2,
            *("-m", "hpc_lpm", "train", "--model", "own_devices:model", "--out", "run"),
            *("--dataset", "synthetic,samples=40000,features=64", "--strategy", "fbp"),
            *("--steps", str(STEPS), "--batch-size", "16", "--lr", "0.001"),
            *("--micro-batches", str(MICRO_BATCHES)),
            output=stream.fileno(),
        )
        deadline, slow_from = time.monotonic() + 300, range(0)
        while launcher.poll() is None and time.monotonic() < deadline:
            if not slow_from and (before := steps_in(metrics)) >= SLOW_FROM:
                flag.touch()
                slow_from = range(before, steps_in(metrics) + IN_FLIGHT_STEPS + 1)
            elif slow_from and " is slow: " in log.read_text():
                flag.unlink(missing_ok=True)
            time.sleep(0.1)
        launcher.kill()
    assert launcher.returncode == 0, log.read_text()
    (said,) = [line for line in log.read_text().splitlines() if " is slow: " in line]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (found,) = result["stragglers"]
    assert (found["rank"], found["beside"]) == (1, "before")
    assert 1.8 < found["factor"] < 3.5
    # A rank is judged in blocks of time: it becomes slow within one, which is slow or the last that
    # is not.
    most_steps_of_a_block = math.ceil(SECONDS / BLOCKS / (MICRO_BATCHES * FORWARD_SECONDS))
    assert slow_from.start - most_steps_of_a_block < found["from_step"]
    assert found["from_step"] < slow_from.stop + most_steps_of_a_block
    assert f"rank 1 on {found['host']} is slow: since step {found['from_step']} its " in said
