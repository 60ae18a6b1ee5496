"""The benchmark over several campaigns: what it refuses at once, and what its exit code says."""

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from benchmarks import bench

CAMPAIGN = {
    "models": ["mlp"],
    "datasets": ["digits"],
    "strategies": ["fbp", "gpipe", {"pipedream-2bw": {"micro_batches": 1}}],
    "micro_batches": 4,
    "batch_size": 64,
    "weights": "replay",
    "steps": 8,
    "tune": {"budget_seconds": 20},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of campaigns, whose runs and report go below it."""
    for name in ("first", "second", "nodes/spread"):
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"name": path.stem, **CAMPAIGN}))
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setattr(bench, "REPOSITORY", tmp_path)
    monkeypatch.setattr(bench, "CLUSTER", "cluster")
    return tmp_path


class Programs:
    """Stands for what the benchmark starts: notes it, and makes the folder of the campaign."""

    def __init__(self, folder: Path, codes: dict[str, int]) -> None:
        self.folder, self.codes = folder, codes
        self.documents: dict[str, dict[str, Any]] = {}
        self.reported: list[str] = []
        self.refused: dict[str, dict[str, str]] = {}

    def run(self, command: list[str], **_: object) -> SimpleNamespace:
        if command[0] == "cluster":
            return SimpleNamespace(returncode=self.codes.get(command[1], 0))
        document = json.loads(Path(command[command.index("--configfile") + 1]).read_text())
        name = document["name"]
        self.documents[name] = document
        code = self.codes.get(name, 0)
        if code != 3:
            kept = self.folder / "results" / name / "provenance" / "campaign.json"
            kept.parent.mkdir(parents=True)
            kept.touch()
        return SimpleNamespace(returncode=code)

    def report(self, roots: list[Path], out: Path, refused: Any) -> SimpleNamespace:
        self.reported, self.refused = [root.name for root in roots], refused
        return SimpleNamespace(path=out / "report.html")


def called(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, **codes: int
) -> tuple[int, Programs]:
    programs = Programs(folder, codes)
    monkeypatch.setattr(subprocess, "run", programs.run)
    monkeypatch.setattr(bench, "write_joint_report", programs.report)
    return bench.main([*arguments, "--out", str(folder / "out")]), programs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "frist"], "--only names 'frist', did you mean 'first'?, accepted are first, "),
        (["--only", "first", "nix"], "--only names 'nix', accepted are first, second, spread"),
        (["--only"], "--only names no campaign, accepted are first, second, spread: name one"),
        (["--set"], "--set has no setting, accepted are keys of campaign files with a value"),
        (["--set", "steps"], "--set has 'steps', accepted are keys of campaign files with a val"),
        (["--set", "steps="], "--set has 'steps=', accepted are keys of campaign files with a val"),
        (["--set", "=4"], "--set has '=4', accepted are keys of campaign files with a value"),
        (["--set", "step=4"], "--set step=4: unknown key 'step', did you mean 'steps'? (accepted"),
        (["--set", "repeats=0"], "--set repeats=0: repeats"),
        (["--set", "steps=[1"], "--set has 'steps=[1', which is no YAML"),
        (["--set", "name=mine"], "--set has 'name=mine', but each campaign keeps its own name"),
        (["--set", "models=[mpl]"], "can train its cells (model 'mpl' is unknown"),
        (
            ["--only", "second", "--set", "optimizer={lr: 0}"],
            "campaign second with --set optimizer=",
        ),
    ],
)
def test_what_does_not_exist_ends_it_with_one_sentence_before_anything_runs(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    code, programs = called(folder, monkeypatch, *arguments)
    shown = capsys.readouterr()
    assert (code, shown.out) == (2, "")
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1
    assert programs.documents == {}
    assert not (folder / "out").exists()


def test_what_is_set_reaches_the_campaigns_that_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["steps=4", "tune=false", "optimizer={lr: 0.5}"]
    code, programs = called(folder, monkeypatch, "--only", "second", "--set", *settings)
    assert code == 0
    assert list(programs.documents) == programs.reported == ["second"]
    document = programs.documents["second"]
    assert (document["steps"], document["tune"]) == (4, False)
    assert document["optimizer"] == {"lr": 0.5}


def test_what_cannot_be_trained_or_tuned_is_a_row_and_no_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, programs = called(folder, monkeypatch)
    assert code == 0
    assert programs.reported == ["first", "second", "spread"][: 3 if os.geteuid() == 0 else 2]
    for name, document in programs.documents.items():
        # Policy replay is set for all, and means something to one of them.
        assert document["strategies"] == ["fbp", "gpipe"]
        assert list(programs.refused[name]) == ["pipedream-2bw"]
        assert "micro_batches is 1" in programs.refused[name]["pipedream-2bw"]


def test_all_contestants_of_the_repository_can_be_asked_what_they_would_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(bench.REPOSITORY)
    for path, document in bench.chosen_documents(full=True).items():
        accepted, refused = bench.split(document, str(path))
        assert accepted
        assert all(reason and "\n" not in reason for reason in refused.values())


@pytest.mark.parametrize("code", [1, 3])
def test_a_campaign_that_failed_gives_exit_code_1_and_the_report_is_written(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
) -> None:
    ended, programs = called(folder, monkeypatch, "--only", "first", "second", first=code)
    assert ended == 1
    assert programs.reported == (["second"] if code == 3 else ["first", "second"])
    out = capsys.readouterr().out
    assert "report.html" in out
    assert f"first failed: snakemake ended with exit code {code}." in out


def test_nodes_that_cannot_be_started_fail_their_campaign_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    ended, programs = called(folder, monkeypatch, up=1)
    assert (ended, programs.reported) == (1, ["first", "second"])
    assert "spread did not run: its nodes could not be started." in capsys.readouterr().out


def test_nodes_are_left_out_without_root_and_refused_where_nothing_else_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ended, programs = called(folder, monkeypatch)
    assert (ended, list(programs.documents)) == (0, ["first", "second"])
    assert "spread is left out, since root alone starts its nodes" in capsys.readouterr().out
    ended, programs = called(folder, monkeypatch, "--only", "spread")
    assert (ended, programs.documents) == (2, {})
