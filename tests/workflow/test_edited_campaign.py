"""A campaign whose file is edited between calls of Snakemake never mixes its settings."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpc_lpm.campaign.results import load_results
from hpc_lpm.campaign.runs import Run

REPOSITORY = Path(__file__).parents[2]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
EDITS = 10
MODULE = """
from torch import nn

def net(shape):
    return [nn.Sequential(nn.Flatten(), nn.Linear(256, {width})), nn.Linear({width}, 10)]
"""
START: dict[str, Any] = {
    "name": "edited",
    "models": ["net_of_edits:net"],
    "datasets": ["digits,size=16"],
    "strategies": ["sequential"],
    "optimizer": {"lr": 0.1},
    "steps": 2,
    "checkpoint_epochs": 0,
    "trace_steps": 0,
}
VALUES: dict[str, list[Any]] = {
    "optimizer": [{"lr": 0.1}, {"lr": 0.01}],
    "batch_size": [32, 64],
    "seeds": [[0], [0, 1]],
    "clip_norm": [0.5, 2.0],
    "receive_timeout_seconds": [60, 90],
    "width": [3, 4],
}

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(1200)]


def snakemake(folder: Path, *options: str) -> str:
    command = [SNAKEMAKE, "--snakefile", str(REPOSITORY / "Snakefile"), "--cores", "2"]
    done = subprocess.run(
        [*command, "--configfile", "edited.yaml", *options],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def describe(run: Run) -> tuple[object, ...]:
    """Return what a run was trained with, as its files tell: its settings and its module."""
    optimizer = run.result.settings["optimizer"]
    assert isinstance(optimizer, dict)
    named = [run.result.settings[key] for key in ("batch_size", "clip_norm", "seed")]
    return (optimizer["lr"], *named, (run.folder / "width of the module").read_text())


def test_ten_edits_train_what_is_new_alone_and_report_what_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chance = random.Random(3)
    document, width = dict(START), 3
    trained: dict[tuple[object, ...], float] = {}
    for number in range(EDITS + 1):
        if number:
            key = chance.choice(list(VALUES))
            if key == "width":
                width = 7 - width
            else:
                values = [value for value in VALUES[key] if value != document.get(key)]
                document[key] = chance.choice(values)
        (tmp_path / "edited.yaml").write_text(yaml.safe_dump(document))
        (tmp_path / "net_of_edits.py").write_text(MODULE.format(width=width))
        # The report itself is not of interest, and takes its time.
        said = snakemake(tmp_path, "--until", "train_alone")
        results = load_results(tmp_path / "results" / "edited")
        assert not results.missing
        expected = {
            (
                document["optimizer"]["lr"],
                document.get("batch_size", 64),
                document.get("clip_norm"),
                seed,
                str(width),
            )
            for seed in document.get("seeds", [0])
        }
        news = 0
        for run in results.runs:
            stamp = run.folder / "width of the module"
            when = (run.folder / "result.json").stat().st_mtime
            if not stamp.exists():
                stamp.write_text(str(width))
                news += 1
            what = describe(run)
            assert trained.setdefault(what, when) == when
            assert results.campaign.optimizer.lr == what[0]
        assert {describe(run) for run in results.runs} == expected
        kept = len(results.runs) - news
        assert not news or f"training {news}" in said
        assert not kept or not news or f"kept {kept} trial" in said
    assert 3 < len(trained) < 2 * EDITS
