"""A damaged checkpoint costs the work since the one before it, and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded

register([])

TRAIN = (
    *("train", "--model", "mlp,layers=3,width=8", "--dataset", "digits,size=8"),
    *("--strategy", "sequential", "--batch-size", "256", "--epochs", "3"),
)


def truncated(path: Path) -> None:
    file = path / "rank-0.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def flipped(path: Path) -> None:
    file = path / "rank-0.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)


def without_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def emptied(path: Path) -> None:
    for file in path.iterdir():
        file.write_bytes(b"")


def of_another_step(path: Path) -> None:
    (other,) = (each for each in path.parent.glob("step-*") if each != path)
    shutil.copy(other / "rank-0.safetensors", path)


DAMAGES = [truncated, flipped, without_manifest, emptied, of_another_step]


def train(out: Path, *options: str) -> int:
    return run_guarded(app, [*TRAIN, "--out", str(out), *options])


def result(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((out / "result.json").read_text())
    return found


def checkpoints(out: Path) -> list[Path]:
    return sorted((out / "checkpoint").iterdir(), key=lambda path: int(path.name[5:]))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_run_goes_on_from_the_one_before_and_ends_in_the_same_weights(
    damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run") == 0
    undisturbed = result(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    older, newest = checkpoints(tmp_path / "run")
    damage(newest)
    capsys.readouterr()
    assert train(tmp_path / "run", "--resume") == 0
    said = capsys.readouterr().out
    assert str(newest) in said
    assert f"resuming from {older}, after step {older.name[5:]} of " in said
    resumed = result(tmp_path / "run")
    assert resumed["weights_sha256"] == undisturbed["weights_sha256"]
    assert resumed["train_loss"] == undisturbed["train_loss"]
    assert [path.name for path in checkpoints(tmp_path / "run")] == [older.name, newest.name]


def test_a_damaged_one_goes_where_the_run_goes_on_from_before_its_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path) == 0
    (tmp_path / "result.json").unlink()
    newest = checkpoints(tmp_path)[-1]
    before = newest.with_name(f"{newest.name}-before-evaluation")
    shutil.copytree(newest, before)
    truncated(newest)
    capsys.readouterr()
    assert train(tmp_path, "--resume") == 0
    assert f"resuming from {before}, after step " in capsys.readouterr().out
    assert before.exists()
    assert not newest.exists()


@pytest.mark.parametrize("damage", DAMAGES[:4], ids=lambda damage: damage.__name__)
def test_without_a_sound_one_the_first_damage_is_the_sentence(
    damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kept in ("1", "2"):
        out = tmp_path / kept
        assert train(out, "--keep-checkpoints", kept) == 0
        (out / "result.json").unlink()
        found = checkpoints(out)
        assert len(found) == int(kept)
        for path in found:
            damage(path)
        capsys.readouterr()
        assert train(out, "--resume", "--keep-checkpoints", kept) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert found[-1].name in said
        assert checkpoints(out) == found


def test_as_many_are_kept_as_were_asked_for(tmp_path: Path) -> None:
    for kept in (1, 2, 3, 9):
        out = tmp_path / str(kept)
        assert train(out, "--keep-checkpoints", str(kept)) == 0
        assert len(checkpoints(out)) == min(kept, 3)
        losses = result(out)["train_loss"]
        assert isinstance(losses, list)
        assert checkpoints(out)[-1].name == f"step-{len(losses)}"


OWN_DATA = """
from pathlib import Path

import torch
from hpc_lpm.data.dataset import Dataset, DataShape, Split


def points(data_dir):
    inputs = torch.randn(int(Path("samples").read_text()), 2)
    targets = (inputs[:, 0] > 0).long()
    parts = [Split(inputs, targets) for _ in range(2)]
    return Dataset("points", DataShape("image", (2,), 2), *parts)
"""


def test_more_data_than_were_trained_on_are_refused_unless_the_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN_DATA)
    monkeypatch.chdir(tmp_path)

    def train_on(samples: int, epochs: int) -> int:
        Path("samples").write_text(str(samples))
        run = ("train", "--model", "mlp,layers=2,width=4", "--dataset", f"{name}:points")
        length = ("--batch-size", "8", "--epochs", str(epochs))
        return run_guarded(app, [*run, *length, "--out", "run", "--resume"])

    assert train_on(16, 1) == 0
    assert train_on(32, 1) == 0
    capsys.readouterr()
    assert train_on(32, 2) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "with data of 2 optimizer steps an epoch, this run has data of 4: give the" in said
    assert train_on(16, 2) == 0
