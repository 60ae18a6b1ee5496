"""A user's own model and data set, in a file of the user's, are named like the toolkit's."""

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from hpc_lpm import extensions
from hpc_lpm.cli import datasets, models  # noqa: F401  registers the commands
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_DONE, run_guarded
from hpc_lpm.data.dataset import DataShape
from hpc_lpm.data.registry import dataset_shape, load_dataset
from hpc_lpm.errors import InputError
from hpc_lpm.models.registry import create_model

OWN = """
from pathlib import Path

import torch
from torch import nn
from hpc_lpm.data.dataset import Dataset, DataShape, Split

loaded = []


def spirals(data_dir, arms: int = 3, noise=0.1, samples: int | None = None):
    \"\"\"Points on spirals.

    Any number of arms.
    \"\"\"
    loaded.append(data_dir)
    targets = torch.arange(samples or 60) % arms
    angles = torch.linspace(0, 6, len(targets)) + 6.3 * targets / arms
    inputs = torch.stack([angles.cos(), angles.sin()], dim=1).double()
    inputs += noise * torch.randn(inputs.shape)
    train, test = Split(inputs[12:], targets[12:]), Split(inputs[:12], targets[:12])
    return Dataset("mine", DataShape("image", inputs.shape[1:], targets.max() + 1), train, test)


def perceptron(shape, width: int = 8):
    (features,) = shape.input_shape
    return [lambda: nn.Linear(features, width), nn.ReLU, lambda: nn.Linear(width, shape.classes)]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return name


@pytest.fixture
def installed(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a package with both were installed."""
    points = {
        "hpc_lpm.datasets": {"spirals": EntryPoint("spirals", f"{own}:spirals", "")},
        "hpc_lpm.models": {"perceptron": EntryPoint("perceptron", f"{own}:perceptron", "")},
    }
    monkeypatch.setattr(extensions, "_points", lambda group: points.get(group, {}))
    monkeypatch.syspath_prepend(".")


def test_own_data_set_is_loaded_with_its_options_and_the_data_folder(own: str) -> None:
    identifier = f"{own}:spirals,arms=5,samples=70"
    dataset = load_dataset(identifier, Path("somewhere"))
    assert dataset.name == identifier
    assert dataset.shape == DataShape("image", (2,), 5)
    assert (len(dataset.train), len(dataset.test)) == (58, 12)
    assert dataset.train.inputs(torch.arange(3)).dtype == torch.float32
    assert sys.modules[own].loaded == [Path("somewhere")]


def test_own_data_set_is_the_same_whenever_it_is_loaded(own: str) -> None:
    everything = torch.arange(48)
    torch.manual_seed(1)
    first = load_dataset(f"{own}:spirals").train.inputs(everything)
    state = torch.random.get_rng_state()
    assert torch.equal(load_dataset(f"{own}:spirals").train.inputs(everything), first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_shape_of_an_own_data_set_is_found_by_loading_it_once(own: str) -> None:
    for _ in range(2):
        shape = dataset_shape(f"{own}:spirals,arms=4", Path("somewhere"))
        assert shape == DataShape("image", (2,), 4)
    assert sys.modules[own].loaded == [Path("somewhere")]


@pytest.mark.usefixtures("installed")
def test_entry_points_are_plain_names_with_options() -> None:
    dataset = load_dataset("spirals,arms=4")
    assert dataset.name == "spirals,arms=4"
    assert dataset_shape("spirals,arms=4") == dataset.shape
    model = create_model("perceptron,width=5", dataset.shape)
    assert model.name == "perceptron,width=5"
    assert model.build_layer(2, 0).weight.shape == (4, 5)


@pytest.mark.usefixtures("installed")
def test_entry_points_do_not_take_a_path() -> None:
    with pytest.raises(InputError, match="accepted is spirals without a path"):
        load_dataset("spirals:here")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("command", "name", "description", "options"),
    [
        ("datasets", "spirals", "Points on spirals", {"arms": 3, "noise": 0.1, "samples": None}),
        ("models", "perceptron", "your own", {"width": 8}),
    ],
)
def test_entry_points_are_listed_after_the_toolkits_own(
    command: str,
    name: str,
    description: str,
    options: dict[str, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_guarded(app, [command, "--json"]) == EXIT_DONE
    last = json.loads(capsys.readouterr().out)[-1]
    assert last == {"name": name, "description": description, "options": options}
    assert run_guarded(app, [command]) == EXIT_DONE
    shown = capsys.readouterr().out
    assert name in shown
    assert description in shown


def test_a_module_named_like_one_of_the_toolkits_names_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mnist5k", raising=False)
    Path("mnist5k.py").write_text(OWN, encoding="utf-8")
    assert load_dataset("mnist5k:spirals").shape.input_shape == (2,)
    monkeypatch.delitem(sys.modules, "mnist5k")


def test_own_model_trains_on_own_data(own: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hpc_lpm", "train", "--strategy", "sequential"]
    command += ["--model", f"{own}:perceptron,width=6", "--dataset", f"{own}:spirals,arms=2"]
    command += ["--steps", "2", "--batch-size", "8", "--micro-batches", "2", "--out", "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == EXIT_DONE, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert (result["model"], result["dataset"]) == (command[7], command[9])
    assert len(result["train_loss"]) == 2
    assert result["test_predictions"] == 12
