"""A model of one's own, from the question which strategy to use to the race of the best three."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.workflow.test_campaign import REPOSITORY, SNAKEMAKE

TOYS = Path(__file__).parent / "extensions" / "toys.py"
ASKED = [
    *("advise", "toys:perceptron,width=8", "--dataset", "toys:blobs,samples=128"),
    *("--devices", "2", "--batch-size", "32", "--micro-batch", "8"),
    *("--repeats", "1", "--also", "toys:Eager", "--also", "toys:Relay", "--lr", "0.05"),
]

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(1200)]


def test_the_campaign_that_advice_writes_races_the_first_three_of_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(TOYS, tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "hpc_lpm", *ASKED, "--write-campaign", "race.yaml", "--json"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    told = json.loads(asked.stdout)
    left = {each["strategy"]: each["reason"] for each in told["left_out"]}
    assert "plan_options" in left["toys:Relay"]
    assert "toys:Eager" in {each["strategy"] for each in told["strategies"]}
    raced = subprocess.run(
        [
            *(SNAKEMAKE, "--snakefile", str(REPOSITORY / "Snakefile"), "--cores", "2"),
            *("--configfile", "race.yaml", "--config", "steps=6", "repeats=1"),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert raced.returncode == 0, raced.stdout + raced.stderr
    summary = pd.read_csv(tmp_path / "results" / "race" / "summary.csv").set_index("strategy")
    first = told["strategies"][:3]
    assert set(summary.index) == {each["strategy"] for each in first}
    for each in first:
        run = next((tmp_path / "results" / "race" / "runs").glob(f"*-{each['strategy']}-*"))
        settings = json.loads((run / "result.json").read_text())["settings"]
        assert settings["micro_batches"] == each["micro_batches"]
        assert summary.loc[each["strategy"], "ranks"] == each["stages"] * each["replicas"]
