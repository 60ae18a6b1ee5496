"""`hpc-lpm datasets DATASET` shows what a data set holds, in the user's own words."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpc_lpm.cli import datasets  # noqa: F401  registers the command
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE, run_guarded


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_guarded(app, ["datasets", *arguments]) == EXIT_DONE
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(shown(capsys, *arguments, "--json"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    chances = np.random.default_rng(0)
    for name, count in (("new[red]", 5), (":smile:", 5)):
        (tmp_path / "photos[/en]" / name).mkdir(parents=True)
        for number in range(count):
            pixels = chances.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos[/en]" / name / f"{number}.png")
    (tmp_path / "photos[/en]" / "new[red]" / "lost[old].png").touch()
    return tmp_path / "photos[/en]"


def test_images_are_shown_with_classes_parts_and_files_left_out(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identifier = f"images:{photos},size=8"
    out = shown(capsys, identifier)
    for text in (
        f"{identifier}: image, 2 classes",
        "inputs: float32 (3, 8, 8); targets: int64 ()",
        "samples: 8 training, 2 test",
        "new[red]",
        ":smile:",
        "lost[old].png (is empty)",
    ):
        assert text in out
    found = document(capsys, identifier)
    assert found["class_names"] == [":smile:", "new[red]"]
    assert found["parts"] == {
        "training": {"samples": 8, "of_each_class": [4, 4]},
        "test": {"samples": 2, "of_each_class": [1, 1]},
    }
    assert len(found["mean"]) == len(found["std"]) == 3
    assert len(found["first_samples"]) == 3
    assert len(found["skipped"]) == 1


@pytest.mark.parametrize(
    ("targets", "task", "counts"),
    [
        ([[0.0, 1.0], [1.0, 1.0]] * 5, "multi-label", [5, 10]),
        ([0.5, 1.5] * 5, "regression", None),
        (["yes", "no"] * 5, "classes", [5, 5]),
    ],
)
def test_targets_of_every_task_are_counted_or_measured(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    targets: list[Any],
    task: str,
    counts: list[int] | None,
) -> None:
    path = tmp_path / "data.npz"
    inputs = np.arange(20.0).reshape(10, 2)
    np.savez(path, x=inputs, y=np.array(targets), x_test=inputs, y_test=np.array(targets))
    assert f"npz:{path}: numbers, " in shown(capsys, f"npz:{path}")
    found = document(capsys, f"npz:{path}")
    assert found["task"] == task
    assert found["parts"]["training"]["of_each_class"] == counts
    if task == "regression":
        assert (found["targets_mean"], found["targets_std"]) == ([1.0], [0.5])
    assert found["mean"] == [9.5]
    assert [sample["inputs"] for sample in found["first_samples"]] == [[0, 1], [2, 3], [4, 5]]


def test_text_is_shown_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("[bold] words " * 100)
    assert "'[bold] words [bold]" in shown(capsys, f"text:{tmp_path / 'a.txt'},sequence=40")
    assert document(capsys, f"text:{tmp_path / 'a.txt'},sequence=40")["vocabulary"] == 256


OWN = """
import torch

class Points:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"at": torch.ones(2), "when": torch.tensor(index)}, {"box": torch.zeros(4)}


def points(data_dir):
    return Points(), Points()
"""


def test_a_users_own_samples_of_any_structure_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own_points.py").write_text(OWN)
    out = shown(capsys, "own_points:points", "--data-dir", str(tmp_path))
    assert "inputs: float32 (2), int64 (); targets: float32 (4)" in out
    assert "own_points:points: other, a task of your own" in out


def test_what_cannot_be_loaded_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(app, ["datasets", "images:/nowhere"]) == EXIT_BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1


def test_notices_are_said_once_by_the_first_rank(photos: Path) -> None:
    program = (
        "from pathlib import Path\nfrom hpc_lpm.data.registry import load_dataset\n"
        f"for _ in range(2): load_dataset('images:{photos},size=8', Path('elsewhere'))"
    )
    for rank, lines in (("0", 2), ("1", 0)):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"OMPI_COMM_WORLD_RANK": rank, "PYTHONPATH": ":".join(sys.path)},
        )
        said = done.stderr.splitlines()
        assert len(said) == lines
        if lines:
            assert "is not looked for in --data-dir elsewhere: its path says where it is" in said[0]
            assert "1 files or folders of data set images:" in said[1]
            assert "lost[old].png (is empty)" in said[1]
