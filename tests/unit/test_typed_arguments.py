"""What was typed is refused where a shell has left it empty, or Python would read over a sign."""

import json
from pathlib import Path

import pytest

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded

register([])

MODEL = ("--model", "mlp,layers=3,width=8", "--dataset", "digits,size=8")
COMMANDS = {
    "train": ["train", *MODEL, "--steps", "1", "--out"],
    "profile": ["profile", "mlp", "--dataset", "digits", "--micro-batch", "4", "--out"],
    "plan": ["plan", "profile.json", "--stages", "2", "--out"],
    "export": ["export", "run", "--out"],
    "report": ["report", "results/a", "results/b", "--out"],
    "advise": ["advise", "mlp", "--dataset", "digits", "--devices", "2", "--write-campaign"],
    "simulate": ["simulate", "profile.json", "--plan"],
    "expectations": ["campaign", "expectations", "results/a", "--out"],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("joined", [False, True], ids=["apart", "joined"])
def test_an_empty_path_is_refused_by_every_command(
    name: str,
    joined: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    *command, option = COMMANDS[name]
    typed = [f"{option}="] if joined else [option, ""]
    assert run_guarded(app, [*command, *typed]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{option} is empty" in said
    assert not list(tmp_path.iterdir())


def test_an_empty_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(app, ["report", ""]) == 2
    assert "an argument is empty" in capsys.readouterr().err


NUMBERS = [
    ("plan", "--stages", "1_0"),
    ("plan", "--micro-batches", "1_0"),
    ("plan", "--tolerance", "0.0_2"),
    ("plan", "--speeds", "1_0,1"),
    ("train", "--seed", "1_0"),
    ("train", "--lr", "1_0.5"),
    ("train", "--lr", "1_0e-1"),
    ("train", "--drain-at", "1_0"),
    ("train", "--lr-scale", "head=1_0"),
    ("profile", "--repeats", "1_0"),
    ("advise", "--batch-size", "6_4"),
    ("advise", "--micro-batch", "6_4"),
]


@pytest.mark.parametrize(("name", "option", "value"), NUMBERS)
def test_a_number_with_underscores_is_refused(
    name: str, option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "profile.json"
    made = ["profile", "mlp,layers=3,width=8", "--dataset", "digits,size=8", "--repeats", "1"]
    if name == "plan":
        assert run_guarded(app, [*made, "--micro-batch", "4", "--out", str(profile)]) == 0
    capsys.readouterr()
    command = [str(profile) if each == "profile.json" else each for each in COMMANDS[name]]
    assert run_guarded(app, [*command, str(tmp_path / "out"), option, value]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert option.removeprefix("--").replace("-", " ") in said.replace("-", " ")
    assert value in said
    assert not (tmp_path / "out").exists()


def test_a_batch_whose_divisors_nobody_can_try_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["advise", "mlp", "--dataset", "digits", "--devices", "2", "--batch-size"]
    assert run_guarded(app, [*command, str(10**12)]) == 2
    assert "from 1 to 10,000,000" in capsys.readouterr().err


def test_texts_and_what_is_for_other_programs_may_have_underscores_and_be_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "1_0"
    assert run_guarded(app, [*COMMANDS["train"], str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 0
    assert run_guarded(app, ["campaign", "submit", str(tmp_path / "none.yaml"), "--", ""]) == 2
    assert "none.yaml does not exist" in capsys.readouterr().err
