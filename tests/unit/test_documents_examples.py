"""The README's example of a model of one's own runs as printed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.documents import ROOT, code_blocks


@pytest.mark.mpi
def test_the_readmes_own_model_trains_on_one_device_and_on_two(tmp_path: Path) -> None:
    blocks = code_blocks(ROOT / "README.md")
    (module,) = (block.text for block in blocks if block.language == "python")
    (commands,) = (block.text for block in blocks if block.language == "sh")
    (tmp_path / "my_models.py").write_text(module, encoding="utf-8")
    programs = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([programs, os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for run, ranks in (("one-device", 1), ("two-devices", 2)):
        result = json.loads((tmp_path / "results" / run / "result.json").read_text())
        assert result["ranks"] == ranks
        first, last = result["train_loss"][0], sum(result["train_loss"][-5:]) / 5
        assert max(result["train_loss"]) < 1.2 * first, "the loss climbs before it falls"
        assert last < first / 2
        assert result["test_accuracy"][-1] > 0.8
