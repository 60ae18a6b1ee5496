"""A study in a folder of one's own, from the wheel to the report: the tutorial, as printed."""

import json
import subprocess
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from tests.installed import build_wheel, environment_of, make_environment
from tests.unit.documents import ROOT, code_blocks

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(1200)]

TUTORIAL = ROOT / "docs" / "tutorials" / "own-study.md"
GIT = {
    f"GIT_{who}_{what}": text
    for who in ("AUTHOR", "COMMITTER")
    for what, text in (("NAME", "a reader"), ("EMAIL", "reader@example.org"))
}
BREAKING = """

class Breaking(nn.Module):
    calls = 0

    def forward(self, x):
        Breaking.calls += self.training
        if Breaking.calls > 60:
            raise RuntimeError("this layer breaks")
        return x


def breaking(shape):
    return [*network(shape, width=8), Breaking]
"""
BROKEN = """
name: broken
models: ["my_model:network,width=16", "my_model:breaking"]
datasets: ["my_data:stripes"]
strategies: [sequential]
batch_size: 64
steps: 80
"""


class Shell:
    """The shell of a reader who has nothing but the wheel, in a folder whose name has a space."""

    def __init__(self, folder: Path) -> None:
        self.wheel = build_wheel(folder / "a folder" / "built")
        self.folder = self.wheel.rename(folder / "a folder" / self.wheel.name).parent
        self.wheel = self.folder / self.wheel.name
        self.programs = make_environment(folder / "environment")
        self.study = self.folder / "my-study"

    def run(self, commands: str, folder: Path, code: int = 0) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=folder,
            env=environment_of(self.programs) | GIT | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell in which the tutorial has been followed up to its first report."""
    shell = Shell(tmp_path_factory.mktemp("reader"))
    blocks = [block.text for block in code_blocks(TUTORIAL) if block.language == "sh"]
    first = next(number for number, text in enumerate(blocks) if "--cores 2" in text)
    said = shell.run("".join(blocks[: first + 1]), shell.folder)
    assert "training 3 trials" in said
    return shell


def test_it_ends_in_a_report_of_the_installed_package(shell: Shell) -> None:
    where = shell.run("cd /; python -c 'import hpc_lpm; print(hpc_lpm.__file__)'", shell.study)
    assert Path(where.strip()).is_relative_to(shell.programs.parent)
    root = shell.study / "results" / "campaign"
    assert "trials are missing" not in (root / "report.html").read_text()
    summary = pd.read_csv(root / "summary.csv")
    assert list(summary["strategy"]) == ["sequential", "gpipe", "fbp"]
    assert (summary["test_accuracy"] > 0.8).all()
    commands = [
        word
        for path in root.glob("runs/*/launch.json")
        for word in json.loads(path.read_text())["command"]
    ]
    assert str(shell.programs / "python") in commands
    assert not [word for word in commands if str(ROOT) in word]


def test_the_provenance_is_that_of_the_study_and_not_of_a_checkout(shell: Shell) -> None:
    provenance = shell.study / "results" / "campaign" / "provenance"
    environment = json.loads((provenance / "environment.json").read_text())
    head = shell.run("git rev-parse HEAD", shell.study).strip()
    assert environment["study"] == {"revision": head, "dirty": False, "diff_sha256": None}
    assert environment["git"]["revision"] is None
    assert len(environment["locked_packages"]["sha256"]) == 64
    assert "rule train_ranks:" in (provenance / "Snakefile").read_text()


def test_it_is_the_same_study_from_wherever_snakemake_is_called(shell: Shell) -> None:
    said = shell.run("snakemake --snakefile my-study/Snakefile --cores 2 -n", shell.folder)
    assert "Nothing to be done" in said
    assert not (shell.folder / "results").exists()


def test_a_second_campaign_is_planned_and_the_cluster_profile_is_accepted(shell: Shell) -> None:
    (text,) = (b.text for b in code_blocks(TUTORIAL) if b.text.startswith("# config/wide.yaml"))
    (shell.study / "config" / "wide.yaml").write_text(text)
    lines = [line for block in code_blocks(TUTORIAL) for line in block.text.splitlines()]
    here, cluster = (line for line in lines if line.endswith("--configfile config/wide.yaml"))
    assert "--profile slurm" in cluster
    for command in (here, cluster):
        said = shell.run(f"{command} --dry-run", shell.study)
        assert "results/wide/report.html" in said


def test_trials_that_did_finish_are_reported_if_another_fails(shell: Shell) -> None:
    with (shell.study / "my_model.py").open("a") as file:
        file.write(BREAKING)
    (shell.study / "config" / "broken.yaml").write_text(BROKEN)
    command = "snakemake --cores 2 --configfile config/broken.yaml --keep-going"
    said = shell.run(command, shell.study, code=1)
    assert "1 trial is missing" in said, said
    assert (shell.study / "results" / "broken" / "report.html").exists()


def test_the_wheel_holds_every_file_of_the_package(shell: Shell) -> None:
    command = ["git", "-C", str(ROOT), "ls-files", "hpc_lpm"]
    known = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    if not known:
        pytest.skip("this checkout is no git repository")
    with zipfile.ZipFile(shell.wheel) as wheel:
        packed = set(wheel.namelist())
    assert [name for name in known if (ROOT / name).exists() and name not in packed] == []
