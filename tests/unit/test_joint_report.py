"""A report over several campaigns: who is soonest at a target in each race, and who is missing."""

from pathlib import Path

import pandas as pd
import pytest
from campaign_folders import SPEEDS, campaign, write_folder

from hpc_lpm.campaign.figures.style import TIMES
from hpc_lpm.campaign.joint_report import COLUMNS, Cell, write_joint_report
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded

register([])


def told(cell: Cell, label: str) -> dict[str, str]:
    row = next(row for row in cell.rows if row.label == label)
    return dict(zip(COLUMNS, row.cells, strict=True))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    for name in ("first", "second"):
        write_folder(tmp_path / name, campaign(name=name, repeats=7))
    return [tmp_path / "first", tmp_path / "second"]


def test_contestants_are_ordered_by_the_time_to_the_target(
    folders: list[Path], tmp_path: Path
) -> None:
    cells = write_joint_report(folders, tmp_path / "joint").cells
    assert [cell.campaign for cell in cells] == ["first", "second"]
    for cell in cells:
        times = [row.seconds for row in cell.rows if row.seconds is not None]
        assert len(times) == len(SPEEDS)
        assert times == sorted(times)


def test_the_time_to_the_target_is_that_of_a_step_times_the_expected_steps(
    folders: list[Path], tmp_path: Path
) -> None:
    (cell, _) = write_joint_report(folders, tmp_path / "joint").cells
    for label in SPEEDS:
        row = told(cell, label)
        product = float(row["ms a step"]) * float(row["steps"])
        assert product == pytest.approx(float(row["time to target, ms"]), rel=0.02)
    ours, theirs = (float(told(cell, who)["time to target, ms"]) for who in ("fbp", "horovod"))
    ratio = told(cell, "horovod")["over the proposed"]
    assert float(ratio.split(TIMES)[0]) == pytest.approx(theirs / ours, abs=0.02)
    assert "n = 7" in ratio


def test_the_steps_of_a_contestant_with_replicas_are_those_of_its_stages(tmp_path: Path) -> None:
    chosen = campaign(
        name="shared", stages=12, repeats=7, strategies=["sequential", {"fbp": {"replicas": 2}}]
    )
    write_folder(tmp_path / "shared", chosen)
    (cell,) = write_joint_report([tmp_path / "shared"], tmp_path / "joint").cells
    # Six stages lag by 6 / 4 updates with the average. Twelve would by 11 / 4, which is unknown.
    assert told(cell, "fbp")["steps"] == "1.00"


def test_a_contestant_without_a_run_is_a_row_that_says_why(
    folders: list[Path], tmp_path: Path
) -> None:
    for result in folders[0].glob("runs/*horovod*/result.json"):
        result.unlink()
    refused = {"second": {"zb-v": "it takes 31 micro-batches"}}
    outcome = write_joint_report(folders, tmp_path / "joint", refused)
    first, second = outcome.cells
    assert {row.label: row.failure for row in first.rows if row.failure} == {
        "horovod": "it was not run"
    }
    assert second.rows[-1].failure == "it takes 31 micro-batches"
    assert outcome.failures == 2
    table = pd.read_csv(tmp_path / "joint" / "cells.csv", keep_default_na=False)
    assert len(table) == 2 * len(SPEEDS) + 1
    assert "it takes 31 micro-batches" in outcome.path.read_text()


def test_one_process_that_plays_all_devices_has_none_of_their_numbers(tmp_path: Path) -> None:
    played = {"fbp": {"name": "played", "in_one_process": True}}
    write_folder(tmp_path / "c", campaign(strategies=[played, "fbp", "sequential"], repeats=7))
    (cell,) = write_joint_report([tmp_path / "c"], tmp_path / "joint").cells
    assert cell.rows[-1].label == "played"
    found = {heading: text for heading, text in told(cell, "played").items() if text}
    assert found.keys() == {"steps", "runs"}
    assert told(cell, "sequential")["over the proposed"]
    assert "nan" not in (tmp_path / "joint" / "cells.csv").read_text()


def test_the_command_takes_several_folders_and_says_where_the_report_goes(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", *map(str, folders)]
    assert run_guarded(app, words) == 2
    assert "--out" in capsys.readouterr().err
    assert run_guarded(app, [*words, "--out", str(tmp_path / "joint")]) == 0
    assert (tmp_path / "joint" / "report.html").exists()
