"""A whole campaign, really trained: the smallest model, one epoch, every strategy."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.campaign.provenance import CampaignProvenance
from tests.crates import PROFILES, complaints_about

REPOSITORY = Path(__file__).parents[2]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
STRATEGIES = ["sequential", "deepspeed-1f1b", "fbp"]
if find_spec("horovod"):
    STRATEGIES.append("horovod")
CAMPAIGN = f"""
name: tiny
models: [mlp]
datasets: [digits]
strategies: [{", ".join(STRATEGIES)}]
optimizer: {{name: momentum, lr: 0.05}}
epochs: 1
expect:
  - {{metric: samples_per_second, strategy: fbp, relative_to: sequential, at_least: 0.001}}
"""

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(1200)]


def snakemake(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [SNAKEMAKE, "--snakefile", str(REPOSITORY / "Snakefile"), "--cores", "2"]
    return subprocess.run(
        [*command, "--configfile", "tiny.yaml", *options],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("workflow") / "a folder"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(CAMPAIGN)
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


def test_every_strategy_is_trained_and_reported(finished: tuple[Path, str]) -> None:
    root = finished[0] / "results" / "tiny"
    assert set(pd.read_csv(root / "summary.csv")["strategy"]) == set(STRATEGIES)
    page = (root / "report.html").read_text()
    assert "trials are missing" not in page
    assert {path.name.split("-")[0] for path in root.glob("figures/*.svg")} == {
        "throughput",
        "accuracy",
        "memory",
        "plan",
        "timeline",
    }


def test_the_folder_is_a_crate_that_its_validator_accepts(finished: tuple[Path, str]) -> None:
    root = finished[0] / "results" / "tiny"
    assert complaints_about(root, *PROFILES) == {profile: [] for profile in PROFILES}


def test_the_provenance_has_the_weights_and_the_node_of_every_trial(
    finished: tuple[Path, str],
) -> None:
    root = finished[0] / "results" / "tiny"
    provenance = CampaignProvenance.read(root / "provenance" / "provenance.json")
    summary = pd.read_csv(root / "summary.csv").set_index("trial")
    hosts = tuple(machine.host for machine in provenance.machines)
    for name, trial in provenance.trials.items():
        assert trial.weights_sha256 == summary.loc[name, "weights_sha256"]
        assert trial.nodes == hosts
        assert [attempt.exit_code for attempt in trial.attempts] == [0]
    assert {name.split("/")[0] for name in provenance.steps} == {"profiles", "plans"}


def test_trials_run_one_after_the_other_in_the_order_of_the_matrix(
    finished: tuple[Path, str],
) -> None:
    root = finished[0] / "results" / "tiny"
    launches = json.loads((root / "provenance" / "launches.json").read_text())
    assert [name.split("digits-")[1].split("-")[0] for name in launches] == [
        strategy.split("-")[0] for strategy in STRATEGIES
    ]
    for earlier, later in pairwise(map(Launch.model_validate, launches.values())):
        assert earlier.ended <= later.started


def test_the_terminal_shows_how_far_the_campaign_is(finished: tuple[Path, str]) -> None:
    count = len(STRATEGIES)
    for number, strategy in enumerate(STRATEGIES, start=1):
        assert f"[{number}/{count}] {strategy} seed 0 repeat 0 | " in finished[1]


def test_a_finished_campaign_has_nothing_left_to_do(finished: tuple[Path, str]) -> None:
    again = snakemake(finished[0], "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_strategy_more_is_trained_alone(finished: tuple[Path, str]) -> None:
    folder = finished[0]
    (folder / "tiny.yaml").write_text(CAMPAIGN.replace("strategies: [", "strategies: [gpipe, "))
    planned = snakemake(folder, "--dry-run")
    (folder / "tiny.yaml").write_text(CAMPAIGN)
    lines = [line.split() for line in planned.stdout.splitlines()]
    counts = dict(line for line in lines if len(line) == 2 and line[1].isdigit())
    assert (counts.get("plan"), counts.get("train_ranks")) == ("1", "1")
    assert not counts.keys() & {"profile", "train_alone"}


def test_a_broken_expectation_fails_the_campaign_after_its_report(
    finished: tuple[Path, str],
) -> None:
    folder = finished[0]
    root = folder / "results" / "tiny"
    trained = {path: path.stat().st_mtime for path in root.glob("runs/*/result.json")}
    (folder / "tiny.yaml").write_text(CAMPAIGN.replace("0.001", "1000"))
    done = snakemake(folder)
    assert done.returncode == 1
    assert "does not hold" in done.stdout + done.stderr
    assert "does not hold" in (root / "report.html").read_text()
    # What a campaign expects is no reason to train again.
    assert {path: path.stat().st_mtime for path in root.glob("runs/*/result.json")} == trained


def test_a_lost_run_alone_is_run_again(finished: tuple[Path, str]) -> None:
    folder = finished[0]
    (folder / "tiny.yaml").write_text(CAMPAIGN)
    (lost,) = folder.glob("results/tiny/runs/mlp-digits-sequential-*/result.json")
    lost.unlink()
    planned = snakemake(folder, "--dry-run", "--quiet", "reason")
    text = planned.stdout + planned.stderr
    assert "train_alone" in text
    assert "train_ranks" not in text
    assert "rule report" in text


@pytest.mark.skipif("horovod" not in STRATEGIES, reason="Horovod is not installed here")
def test_a_strategy_that_is_not_installed_is_left_out_and_trained_alone_once_it_is(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    folder = shutil.copytree(finished[0], tmp_path / "a copy")
    root = folder / "results" / "tiny"
    for run in root.glob("runs/*horovod*"):
        shutil.rmtree(run)
    # What was lost above is trained in another call than the others, with which it makes no pair.
    (folder / "tiny.yaml").write_text(CAMPAIGN.partition("expect:")[0])
    hidden = tmp_path / "without horovod"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['horovod'] = None\n")
    done = snakemake(folder, PYTHONPATH=str(hidden))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "horovod is left out, its package horovod is not installed" in done.stdout
    assert "<strong>horovod is missing</strong>" in (root / "report.html").read_text()
    assert "horovod" not in set(pd.read_csv(root / "summary.csv")["strategy"])
    installed = snakemake(folder, "--dry-run")
    assert installed.returncode == 0, installed.stderr
    counts = [line.split() for line in installed.stdout.splitlines() if "train" in line]
    assert ["train_ranks", "1"] in counts
    assert not [line for line in counts if line[0] in {"train_alone", "profile", "plan"}]
