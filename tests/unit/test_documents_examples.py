"""The examples of models of one's own, in the README and in the guide, run as printed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cifar_copies import CIFAR10
from tests.unit.documents import ROOT, code_blocks


def run_as_printed(commands: str, folder: Path) -> str:
    """Return what the commands print."""
    programs = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([programs, os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.mpi
def test_the_readmes_own_model_trains_on_one_device_and_on_two(tmp_path: Path) -> None:
    blocks = code_blocks(ROOT / "README.md")
    (module,) = (block.text for block in blocks if block.language == "python")
    (commands,) = (block.text for block in blocks if block.language == "sh")
    (tmp_path / "my_models.py").write_text(module, encoding="utf-8")
    run_as_printed(commands, tmp_path)
    for run, ranks in (("one-device", 1), ("two-devices", 2)):
        result = json.loads((tmp_path / "results" / run / "result.json").read_text())
        assert result["ranks"] == ranks
        first, last = result["train_loss"][0], sum(result["train_loss"][-5:]) / 5
        assert max(result["train_loss"]) < 1.2 * first, "the loss climbs before it falls"
        assert last < first / 2
        assert result["test_accuracy"][-1] > 0.8


@pytest.mark.mpi
def test_the_guide_on_losses_runs_as_printed(tmp_path: Path) -> None:
    blocks = code_blocks(ROOT / "docs" / "how-to" / "own-loss.md")
    (module,) = (block.text for block in blocks if block.language == "python")
    (tmp_path / "my_loss.py").write_text(module, encoding="utf-8")
    for block in blocks:
        if block.language == "sh":
            run_as_printed(block.text, tmp_path)
    of_runs = {
        name: json.loads((tmp_path / "results" / name / "result.json").read_text())
        for name in ("smoothed", "torch", "focal")
    }
    assert of_runs["smoothed"]["weights_sha256"] == of_runs["torch"]["weights_sha256"]
    last = of_runs["focal"]["evaluations"][-2:]
    assert [each["part"] for each in last] == ["validation", "test"]
    assert all(each["metrics"]["right_eights"] > 0.5 for each in last)


GUIDE = ROOT / "docs" / "how-to" / "own-model.md"


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("example", "file", "accuracy"),
    [("net", "my_net.py", 0.8), ("gpt2", "gpt2.json", 0.3), ("unet", "my_unet.py", 0.9)],
)
def test_the_guides_network_learns_in_two_stages(
    example: str, file: str, accuracy: float, tmp_path: Path
) -> None:
    blocks = code_blocks(GUIDE)
    commands = next(b.text for b in blocks if b.language == "sh" and f"results/{example}" in b.text)
    language = "json" if file.endswith("json") else "python"
    named = [b.text for b in blocks if b.language == language]
    (tmp_path / file).write_text(
        named[0] if language == "json" else next(t for t in named if t.startswith(f"# {file}")),
        encoding="utf-8",
    )
    run_as_printed(commands, tmp_path)
    result = json.loads((tmp_path / "results" / example / "result.json").read_text())
    assert result["ranks"] == 2
    assert result["strategy"] == "fbp"
    assert sum(result["train_loss"][-5:]) / 5 < 0.8 * result["train_loss"][0]
    assert result["test_accuracy"][-1] > accuracy


DATA_GUIDE = ROOT / "docs" / "how-to" / "own-data.md"


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("example", "file", "accuracy"),
    [
        ("images", "make_shapes.py", 0.8),
        ("table", None, 0.9),
        ("cifar-10-batches-py", None, 0.0),
        ("cifar-10-batches-bin", None, 0.0),
        ("own", "my_points.py", 0.9),
    ],
)
def test_the_guides_data_are_learnt_in_two_stages(
    example: str, file: str | None, accuracy: float, tmp_path: Path
) -> None:
    blocks = code_blocks(DATA_GUIDE)
    run = example.partition("-")[0]
    commands = next(b.text for b in blocks if b.language == "sh" and f"results/{run}" in b.text)
    if file is not None:
        module = next(b.text for b in blocks if b.text.startswith(f"# {file}"))
        (tmp_path / file).write_text(module, encoding="utf-8")
    if example in CIFAR10:
        CIFAR10[example](tmp_path / "data" / example, images_a_batch=40)
    run_as_printed(commands, tmp_path)
    result = json.loads((tmp_path / "results" / run / "result.json").read_text())
    assert result["ranks"] == 2
    assert result["strategy"] == "fbp"
    assert result["test_accuracy"][-1] >= accuracy


def test_the_trackers_of_the_guide_follow_a_run(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    blocks = code_blocks(ROOT / "docs" / "how-to" / "follow-a-run.md")
    (module,) = (block.text for block in blocks if block.language == "python")
    (command,) = (block.text for block in blocks if block.language == "sh")
    (tmp_path / "my_trackers.py").write_text(module, encoding="utf-8")
    run_as_printed(command, tmp_path)
    run_as_printed(f"{command.strip()} --epochs 3 --resume", tmp_path)
    folder = tmp_path / "results" / "tracked"
    result = json.loads((folder / "result.json").read_text())
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = (folder / "mlflow-run.txt").read_text()
    losses = [each.value for each in client.get_metric_history(run, "loss")]
    assert losses == result["train_loss"]
    assert client.get_run(run).data.params["optimizer.lr"] == "0.1"
    assert client.get_run(run).info.status == "FINISHED"
    validated = [e["loss"] for e in result["evaluations"] if e["part"] == "validation"]
    history = client.get_metric_history(run, "validation_loss")
    assert [each.value for each in history] == validated
    offline = list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(offline) == 2
    assert all(b"validation_loss" in each.read_bytes() for each in offline)
