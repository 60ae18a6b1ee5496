"""`hpc-lpm validate` shows what it understood: the resources and times of each trial."""

import json
from pathlib import Path
from typing import Any

import pytest

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.quantities import Quantity, parse_seconds

register([])

CAMPAIGN = """
name: shown
models: [mlp]
datasets: [digits]
strategies: [{sequential: {threads: 2}}, {fbp: {receive_timeout_seconds: 1:30:00}}, gpipe]
epochs: 1
"""


def validated(
    folder: Path, capsys: pytest.CaptureFixture[str], addition: str, *options: str
) -> str:
    path = folder / "shown.yaml"
    path.write_text(CAMPAIGN + addition)
    assert run_guarded(app, ["validate", str(path), *options]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("addition", "fbp", "alone"),
    [
        (
            "",
            ["1", "from plan", "from profile"],
            ["2", "from profile", "from profile"],
        ),
        (
            "resources: {runtime_minutes: 1d2h, memory_megabytes: 4GiB}",
            ["1", "4096 MiB", "1d2h"],
            ["2", "4096 MiB", "1d2h"],
        ),
        (
            "resources: {memory_megabytes: 512 MB}",
            ["1", "489 MiB", "from profile"],
            ["2", "489 MiB", "from profile"],
        ),
    ],
)
def test_every_trial_has_its_resources(
    addition: str,
    fbp: list[str],
    alone: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = validated(tmp_path, capsys, addition).splitlines()
    for strategy, expected in (("fbp", fbp), ("sequential", alone)):
        (row,) = [line for line in lines if f" {strategy} " in line and "│" in line]
        assert [cell.strip() for cell in row.split("│")][-4:-1] == expected


def test_times_that_are_set_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = validated(tmp_path, capsys, "resources: {nodes: 2}")
    assert "receive_timeout_seconds is 10m for sequential, gpipe." in shown
    assert "receive_timeout_seconds is 1h30m for fbp." in shown
    assert "spread over nodes: 2." in shown


def test_without_a_profile_the_defaults_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "alone.yaml"
    path.write_text(
        "name: a\nmodels: [mlp]\ndatasets: [digits]\nstrategies: [sequential]\nsteps: 2"
    )
    assert run_guarded(app, ["validate", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "4000 MiB (default)" in shown
    assert "1h (default)" in shown
    assert "receive_timeout_seconds is 10m.\n" in shown


def test_the_json_has_them_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document: Any = json.loads(
        validated(tmp_path, capsys, "resources: {runtime_minutes: 90}", "--json")
    )
    fbp = next(trial for trial in document["trials"] if trial["strategy"] == "fbp")
    assert fbp["resources"] == {
        "threads": 1,
        "nodes": None,
        "memory_megabytes": None,
        "memory_from": "plan",
        "runtime_minutes": 90,
        "runtime_from": "campaign",
    }
    assert fbp["times"] == {"receive_timeout_seconds": 5400.0}


@pytest.mark.parametrize(
    ("value", "unit", "spelled"),
    [
        (90, "m", "1h30m"),
        (2880, "m", "2d"),
        (600.0, "s", "10m"),
        (0.5, "s", "500ms"),
        (61.5, "s", "1m1.5s"),
        (5.0, "ms", "5ms"),
        (4096, "MiB", "4096 MiB"),
    ],
)
def test_a_quantity_is_spelled_as_people_type_it(value: float, unit: str, spelled: str) -> None:
    assert Quantity(unit).spelled(value) == spelled
    if unit == "s":
        assert float(parse_seconds(spelled)) == value


def test_further_lengths_and_played_ranks_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lengths.yaml"
    path.write_text(
        "name: a\nmodels: [mlp]\ndatasets: [digits]\nsteps: 20\n"
        "strategies: [sequential, {fbp: {name: played, in_one_process: true, lengths: [30]}}]\n"
        "learning_rate: {schedule: cosine}\ntarget: {metric: train_loss, value: baseline}\n"
    )
    assert run_guarded(app, ["validate", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "One process plays all ranks of played." in shown
    rows = [
        [cell.strip() for cell in line.split("│")] for line in shown.splitlines() if "│ mlp" in line
    ]
    assert sorted(row[-5] for row in rows) == ["", "", "30"]


def test_a_launcher_that_cannot_start_the_sites_container_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slurm").mkdir()
    site = tmp_path / "slurm" / "site.yaml"
    site.write_text("container: {runtime: pyxis, image: i}")
    monkeypatch.chdir(tmp_path)
    validated(tmp_path, capsys, "launcher: {mpi: srun}")
    (tmp_path / "shown.yaml").write_text(CAMPAIGN)
    assert run_guarded(app, ["validate", "shown.yaml"]) == 2
    assert "ranks are started by mpirun: set launcher: {mpi: srun}" in capsys.readouterr().err
