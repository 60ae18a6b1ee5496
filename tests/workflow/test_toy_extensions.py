"""A strategy, schedule, planner, model, data set and metric of one's own, from one's own file.

Each of them goes through `validate`, `plan`, `train` and a campaign, by `module:name` and by the
entry points of an installed package, with nothing changed in the toolkit.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from hpc_lpm.planning.plan import Plan
from tests.mpi.ranks import mpirun
from tests.workflow.test_campaign import REPOSITORY, SNAKEMAKE

TOYS = Path(__file__).parent / "extensions" / "toys.py"
DATA = ["--dataset", "toys:blobs,samples=128"]
RUN = ["--model", "toys:perceptron", *DATA, "--batch-size", "16", "--epochs", "2", "--lr", "0.05"]
CAMPAIGN = """
name: toys
models: ["toys:perceptron,width=8"]
datasets: ["toys:blobs"]
strategies:
  - sequential
  - {"toys:Relay": {pickle_protocol: 5, name: relay}}
  - {"toys:Eager": {micro_batches: 8}}
planners: ["toys:first_layers"]
metrics: ["toys:STEPS_A_SECOND"]
batch_size: 16
micro_batches: 4
optimizer: {lr: 0.05}
epochs: 1
expect:
  - {metric: "toys:STEPS_A_SECOND", strategy: relay, relative_to: sequential, at_least: 0.0001}
"""

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(1200)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of the user's, with the toys in it and the toolkit elsewhere."""
    shutil.copy(TOYS, tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hpc_lpm(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hpc_lpm", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def plan_with(planner: str, schedule: str) -> Plan:
    hpc_lpm("profile", "toys:perceptron", *DATA, "--micro-batch", "4", "--out", "profile.json")
    options = ["--planner", planner, "--schedule", schedule, "--out", "plan.json"]
    hpc_lpm("plan", "profile.json", "--stages", "2", *options)
    return Plan.read(Path("plan.json"))


def train(strategy: str, *options: str) -> str:
    """Train on two ranks and return the hash of the weights."""
    command = ["-m", "hpc_lpm", "train", *RUN, "--strategy", strategy, "--plan", "plan.json"]
    done = mpirun(2, *command, "--out", strategy.partition(":")[2] or strategy, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(Path(strategy.partition(":")[2] or strategy, "result.json").read_text())
    assert result["settings"]["strategy"] == strategy
    return str(result["weights_sha256"])


def sequential() -> str:
    hpc_lpm("train", *RUN, "--out", "sequential")
    return str(json.loads(Path("sequential/result.json").read_text())["weights_sha256"])


def test_by_module_and_name_they_plan_and_train_to_the_weights_of_one_device(
    folder: Path,
) -> None:
    plan = plan_with("toys:first_layers", "toys:Eager")
    assert plan.cuts == (0, 1, 5)
    assert plan.options["schedule"] == "toys:Eager"
    on_one_device = sequential()
    assert train("toys:Eager") == on_one_device
    assert train("toys:Relay", "--pickle-protocol", "5") == on_one_device


def test_an_option_of_ones_own_strategy_is_checked_and_helped_with(folder: Path) -> None:
    plan_with("toys:first_layers", "toys:Eager")
    shown = hpc_lpm("train", "--strategy", "toys:Relay", "--help")
    assert "--pickle-protocol" in shown
    command = ["-m", "hpc_lpm", "train", *RUN, "--strategy", "toys:Relay", "--plan", "plan.json"]
    done = mpirun(2, *command, "--out", "refused", "--pickle-protocol", "9")
    assert done.returncode == 2
    assert "pickle_protocol" in done.stderr
    assert "found 9" in done.stderr


def test_by_entry_points_they_have_plain_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = folder / "toys-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[hpc_lpm.strategies]\nrelay = toys:Relay\n"
        "[hpc_lpm.schedules]\nhasty = toys:Eager\n"
        "[hpc_lpm.planners]\nfirst = toys:first_layers\n"
        "[hpc_lpm.models]\ntoy-net = toys:perceptron\n"
        "[hpc_lpm.datasets]\nblobs = toys:blobs\n"
        "[hpc_lpm.metrics]\nsteps-a-second = toys:STEPS_A_SECOND\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{REPOSITORY}")
    listed = {kind: hpc_lpm(kind, "--json") for kind in ("strategies", "planners", "models")}
    names = {kind: [each["name"] for each in json.loads(text)] for kind, text in listed.items()}
    assert {"relay", "hasty"} <= set(names["strategies"])
    assert "first" in names["planners"]
    assert "toy-net" in names["models"]
    assert plan_with("first", "hasty").cuts == (0, 1, 5)
    assert train("relay") == train("hasty") == sequential()


def test_a_campaign_validates_trains_and_reports_them(folder: Path) -> None:
    Path("toys.yaml").write_text(CAMPAIGN)
    shown = json.loads(hpc_lpm("validate", "toys.yaml", "--json"))
    assert [trial["contestant"] for trial in shown["trials"]] == [
        "sequential",
        "relay",
        "toys:Eager",
    ]
    command = [SNAKEMAKE, "--snakefile", str(REPOSITORY / "Snakefile"), "--cores", "2"]
    done = subprocess.run(
        [*command, "--configfile", "toys.yaml"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = pd.read_csv("results/toys/summary.csv", index_col="contestant")
    assert (summary["steps_a_second"] > 0).all()
    assert summary.loc["relay", "weights_sha256"] == summary.loc["sequential", "weights_sha256"]
    settings = {
        label: json.loads(
            next(Path("results/toys/runs").glob(f"{trial}-*/settings.json")).read_text()
        )
        for label, trial in summary["trial"].items()
    }
    assert settings["relay"]["pickle_protocol"] == 5
    assert settings["toys:Eager"]["micro_batches"] == 8
    assert settings["sequential"]["micro_batches"] == 4
    report = Path("results/toys/report.html").read_text()
    assert "relay" in report
    assert "steps a second" in report
