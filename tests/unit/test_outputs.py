"""No command replaces what it reads, what lies among checkpoints, or a file of another kind."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded

register([])

MODEL = ("mlp,layers=3,width=8", "--dataset", "digits,size=8")


def call(*arguments: object) -> int:
    return run_guarded(app, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    profile, plan = folder / "p.json", folder / "plan.json"
    assert call("profile", *MODEL, "--micro-batch", 4, "--repeats", 1, "--out", profile) == 0
    assert call("plan", profile, "--stages", 2, "--out", plan) == 0
    run = ("train", "--model", *MODEL, "--steps", 2, "--batch-size", 256)
    assert call(*run, "--out", folder / "run") == 0
    (folder / "corpus.txt").write_text("To be, or not to be, that is the question. " * 400)
    (folder / "own_modules.py").write_text("def cuts(model):\n    return [0, 1, model.layers]\n")
    (folder / "race.yaml").write_text("models: [mlp]\ndatasets: [digits]\nstrategies: [fbp]\n")
    (folder / "notes.json").write_text('{"mine": 1}\n')
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


PLAN = ("plan", "p.json", "--stages", 2)
PROFILE = ("profile", *MODEL, "--micro-batch", 4, "--repeats", 1)
TEXT = ("profile", "gpt", "--dataset", "text:corpus.txt", "--micro-batch", 1, "--repeats", 1)
ADVISE = ("advise", *MODEL, "--devices", 2, "--profile", "p.json")
REPLACED = [
    ((*PLAN, "--out", "p.json"), "this command reads"),
    ((*PLAN, "--out", "run/../p.json"), "this command reads"),
    ((*PLAN, "--pareto", "--figure", "p.json"), "this command reads"),
    ((*PLAN, "--pareto", "--out", "new.svg", "--figure", "new.svg"), "writes otherwise"),
    ((*PLAN, "--planner", "own_modules:cuts", "--out", "own_modules.py"), "this command reads"),
    ((*PLAN, "--out", "run/result.json"), "result of a run"),
    ((*PLAN, "--out", "race.yaml"), "campaign file"),
    ((*PROFILE, "--out", "plan.json"), "a plan"),
    ((*PROFILE, "--out", "run/metrics.jsonl"), "log of a run"),
    ((*PROFILE, "--out", "run/trace.json"), "trace"),
    ((*TEXT, "--out", "corpus.txt"), "this command reads"),
    (("profile", "replay:p.json", *MODEL[1:], "--micro-batch", 4, "--out", "p.json"), "reads"),
    ((*ADVISE, "--write-campaign", "p.json"), "this command reads"),
    ((*ADVISE, "--write-campaign", "plan.json"), "a plan"),
    (("export", "run", "--out", "run/result.json"), "result of a run"),
    (("export", "run", "--out", "run/checkpoint/step-2/rank-0.safetensors"), "checkpoints"),
    (("export", "run", "--out", "run/checkpoint/step-2/new.safetensors"), "checkpoints"),
    (("export", "run", "--out", "run/checkpoint/new.safetensors"), "checkpoints"),
]


@pytest.mark.parametrize(("command", "why"), REPLACED, ids=lambda each: str(each[-1])[:40])
def test_what_would_be_lost_is_named_and_left(
    command: tuple[object, ...], why: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder)
    assert call(*command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(command[-1]) in said
    assert why in said
    assert contents(folder) == before


def linked(path: Path, other: Path) -> None:
    path.hardlink_to(other)


@pytest.mark.parametrize("link", [Path.symlink_to, linked], ids=["symbolic", "hard"])
def test_a_link_to_an_input_is_the_input(
    link: Callable[[Path, Path], None], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link(folder / "link.json", folder / "p.json")
    before = contents(folder)
    assert call(*PLAN, "--out", "link.json") == 2
    assert "--out link.json is p.json" in capsys.readouterr().err
    (folder / "other.safetensors").symlink_to("run/checkpoint/step-2/rank-0.safetensors")
    assert call("export", "run", "--out", "other.safetensors") == 2
    assert "lies among the checkpoints" in capsys.readouterr().err
    (folder / "other.safetensors").unlink()
    assert contents(folder) == before


def test_files_of_the_same_kind_and_of_nobody_are_replaced(folder: Path) -> None:
    assert call(*PLAN, "--out", "plan.json") == 0
    assert call(*PROFILE, "--out", "p.json") == 0
    assert call("export", "run", "--out", "run/weights.safetensors") == 0
    assert call("export", "run", "--out", "run/weights.safetensors") == 0
    assert call(*PLAN, "--out", "notes.json") == 0
    assert call(*ADVISE, "--write-campaign", "race.yaml") == 0
    assert call(*ADVISE, "--write-campaign", "race.yaml") == 0


@pytest.mark.parametrize("name", ["no name.yaml", "-.yaml", "missing/\0.yaml", "p.json/race.yaml"])
def test_a_campaign_that_cannot_be_written_is_refused_before_anything_is_measured(
    name: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("hpc_lpm.advice.asked_profiles.AskedProfiles.made_for", None)
    assert call(*ADVISE[:-2], f"--write-campaign={name}") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_full_disk_is_found_before_anything_is_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("hpc_lpm.advice.asked_profiles.AskedProfiles.made_for", None)
    monkeypatch.setattr(Path, "write_bytes", full)
    assert call(*ADVISE[:-2], "--write-campaign", "new.yaml") == 2
    said = capsys.readouterr().err
    assert "new.yaml cannot be used (No space left on device)" in said
    assert not list(folder.glob(".new*"))
