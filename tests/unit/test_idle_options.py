"""An option that would change nothing is refused where it is typed, and not in a settings file."""

import json
from pathlib import Path

import pytest

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded

register([])

TRAIN = [
    *("train", "--model", "mlp,layers=3,width=8", "--dataset", "digits,size=8"),
    *("--steps", "1", "--batch-size", "256"),
]

IDLE = [
    (("--plan", "none.json"), "does not cut the model into stages"),
    (("--plan", "none.json", "--strategy", "limit"), "--strategy limit"),
    (("--rewinds", "5"), "add --non-finite rewind"),
    (("--rewinds", "5", "--non-finite", "skip"), "under which no run rewinds"),
    (("--clip-scope", "stage"), "give the norm"),
    (("--clip-scope", "global"), "give the norm"),
    (("--momentum", "0.5", "--optimizer", "sgd"), "use --optimizer momentum"),
    (("--momentum", "0.5", "--optimizer", "adam"), "--optimizer adam"),
    (("--lr-final-factor", "0.1"), "use --lr-schedule linear or cosine"),
    (("--lr-factor", "0.5", "--lr-schedule", "cosine"), "use --lr-schedule step"),
    (("--keep-checkpoints", "3", "--strategy", "limit"), "saves no checkpoints"),
    (("--checkpoint-epochs", "3", "--strategy", "limit"), "saves no checkpoints"),
]


@pytest.mark.parametrize(("options", "why"), IDLE, ids=lambda each: " ".join(each)[:40])
def test_an_option_that_changes_nothing_is_refused(
    options: tuple[str, ...], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_guarded(app, [*TRAIN, *options, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert " ".join(options[:2]) in said
    assert why in said
    assert "leave it out" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--rewinds", "5", "--non-finite", "rewind"),
        ("--clip-scope", "global", "--clip-norm", "1"),
        ("--momentum", "0.5"),
        ("--momentum", "0", "--optimizer", "sgd"),
        ("--lr-final-factor", "0.1", "--lr-schedule", "linear"),
        ("--lr-factor", "0.5", "--lr-schedule", "step", "--lr-milestones", "1"),
        ("--checkpoint-epochs", "0", "--strategy", "limit"),
    ],
    ids=" ".join,
)
def test_the_same_options_are_accepted_where_they_count(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    assert run_guarded(app, [*TRAIN, *options, "--out", str(tmp_path / "run")]) == 0


def test_a_settings_file_may_hold_options_that_its_strategy_does_not_heed(tmp_path: Path) -> None:
    settings = {
        "model": "mlp,layers=3,width=8",
        "dataset": "digits,size=8",
        "strategy": "sequential",
        "plan": "plan.json",
        "steps": 1,
        "rewinds": 5,
        "optimizer": {"name": "sgd", "momentum": 0.5},
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    given = ["train", "--settings", str(tmp_path / "settings.json")]
    assert run_guarded(app, [*given, "--out", str(tmp_path / "run")]) == 0
    assert run_guarded(app, [*given, "--rewinds", "4", "--out", str(tmp_path / "other")]) == 2
