"""Names of any length and of any letters make files that every file system takes."""

import os
from pathlib import Path

import pytest
from campaign_folders import campaign
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trials import LONGEST_NAME, file_name
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically

register([])

LONGEST = 255
"""Bytes of a name on Linux."""


@settings(deadline=None, derandomize=True)
@given(st.lists(st.text(min_size=1, max_size=400), min_size=1, max_size=6))
def test_a_file_name_is_short_plain_and_its_own(parts: list[str]) -> None:
    name = file_name(*parts)
    assert len(name.encode()) <= LONGEST_NAME
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert file_name(*parts[:-1], f"{parts[-1]}x") != name


def test_usual_names_stay_as_they_were() -> None:
    parts = ("resnet20", "digits", "fbp", "lpm", "k2", "seed0", "repeat0")
    assert file_name(*parts) == "resnet20-digits-fbp-lpm-k2-seed0-repeat0"


def test_every_file_of_a_campaign_of_long_names_can_be_written(tmp_path: Path) -> None:
    label = "Ein Strang mit einem sehr langen Namen, größer als üblich \N{SNOWMAN} " * 8
    models = [f"resnet20,width={width},checkpoint_every_so_often={'9' * 250}" for width in (4, 8)]
    chosen = campaign(models=models, strategies=["sequential", {"fbp": {"name": label}}])
    steps = Steps(chosen, CampaignFolder(tmp_path / chosen.name))
    files = [Path(step.output) for step in [*steps.profiles.values(), *steps.plans.values()]]
    files += [file.with_suffix(".launch.json") for file in files]
    files += [file.with_suffix(".log") for file in files]
    files += [Path(run.output) / "result.json" for run in steps.runs.values()]
    assert len(set(files)) == len(files) == 3 * (2 + 2) + len(steps.trials) + 4
    for file in files:
        write_text_atomically(file, "{}")
        assert len(os.fsencode(file.name)) <= LONGEST
    assert all(name.endswith(("repeat0", "repeat1")) for name in steps.trials)


def test_a_file_may_have_the_longest_name_there_is(tmp_path: Path) -> None:
    for name in ("x" * LONGEST, "ü" * (LONGEST // 2), "a.json"):
        write_text_atomically(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"
    assert len(list(tmp_path.iterdir())) == 3


def test_the_name_of_a_campaign_is_a_folder() -> None:
    assert campaign(name="A" * 100).name == "A" * 100
    with pytest.raises(InputError, match="at most 100 of them"):
        campaign(name="A" * 101)


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("x" * 300, "File name too long"),
        ("graph.txt/plan.json", "Not a directory"),
        (".", "Is a directory"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_before_the_work(
    out: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "graph.txt").write_text("no graph, and so an error if it were read first")
    path = str(tmp_path / out)
    for command in (
        ["plan", str(tmp_path / "graph.txt"), "--stages", "2", "--out", path],
        ["profile", "mlp", "--dataset", "nowhere", "--micro-batch", "2", "--out", path],
    ):
        assert run_guarded(app, command) == 2
        said = capsys.readouterr().err
        assert f"cannot be used ({reason})" in said
        assert said.count("\n") == 1
        assert len(said) < 300
    assert run_guarded(app, ["report", str(tmp_path / ("x" * 300))]) == 2
    assert "File name too long" in capsys.readouterr().err
