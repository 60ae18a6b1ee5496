"""Weights leave a run under the user's own names, and a run starts from such weights."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn

from hpc_lpm.cli import export  # noqa: F401  registers the command
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE, run_guarded
from hpc_lpm.data.dataset import DataShape
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.result import RunResult
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.training import Training
from hpc_lpm.errors import InputError
from hpc_lpm.models.initial_weights import load_initial_weights
from hpc_lpm.models.layered import Layer, LayeredModel, Tie, count_correct, cross_entropy
from hpc_lpm.models.registry import create_model
from hpc_lpm.models.state_names import original_state

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = DataShape("text", (8,), 11)
TIED = "gpt,layers=1,width=8,heads=2,tied=true"


def built(model: LayeredModel, seed: int = 0) -> dict[int, nn.Module]:
    return {index: model.build_layer(index, seed) for index in range(len(model.layers))}


def tensors(layers: dict[int, nn.Module]) -> dict[str, Tensor]:
    found = {}
    for index, layer in layers.items():
        for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
            found[f"{index}.{name}"] = tensor.detach()
    return found


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def write(state: dict[str, Tensor], path: Path) -> Path:
    save_file({name: tensor.clone() for name, tensor in state.items()}, path)
    return path


class Halves(nn.Module):
    """What `renamed` cuts into two: an embedding that is also the projection."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Embedding(11, 8)
        self.norm = nn.BatchNorm1d(8)
        self.outward = nn.Linear(8, 11, bias=False)
        self.outward.weight = self.inward.weight


class Half(nn.Module):
    """A part with flat names and a table that is not saved."""

    def __init__(self, **parameters: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in parameters.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))
        self.register_buffer("table", torch.randn(3), persistent=False)
        self.register_buffer("mean", torch.randn(8))


def renamed() -> LayeredModel:
    """A model such as capture makes: two layers, names of a module, one tensor under two names."""
    first = {
        "p0": "inward.weight",
        "p1": "norm.weight",
        "p2": "norm.bias",
        "mean": "norm.running_mean",
    }
    last = {"q0": "inward.weight", "mean": "norm.running_var"}
    return LayeredModel(
        "renamed",
        (
            Layer("inward", partial(Half, p0=(11, 8), p1=(8,), p2=(8,)), original=first),
            Layer("outward", partial(Half, q0=(11, 8)), original=last),
        ),
        cross_entropy,
        count_correct,
        (Tie(0, "p0", 1, "q0"),),
        aliases={"outward.weight": "inward.weight"},
    )


def test_the_state_of_a_captured_module_has_its_names_and_no_others() -> None:
    model = renamed()
    layers = built(model)
    state = original_state(model, layers)
    expected = Halves().state_dict().keys() - {"norm.num_batches_tracked"}
    assert state.keys() == expected
    assert torch.equal(state["outward.weight"], layers[0].p0)
    assert torch.equal(state["norm.running_var"], layers[1].mean)


@pytest.mark.parametrize("dropped", ["outward.weight", "inward.weight", None])
def test_a_shared_tensor_is_loaded_by_any_of_its_names_into_both_layers(
    dropped: str | None, tmp_path: Path
) -> None:
    model = renamed()
    trained = built(model, seed=1)
    state = original_state(model, trained)
    state.pop(dropped, None)
    layers = built(model)
    tables = [layers[index].table.clone() for index in layers]
    load_initial_weights(write(state, tmp_path / "w.safetensors"), model, layers)
    assert torch.equal(layers[0].p0, trained[0].p0)
    assert torch.equal(layers[1].q0, trained[0].p0)
    assert torch.equal(layers[1].mean, trained[1].mean)
    assert all(torch.equal(layers[index].table, tables[index]) for index in layers)


def test_a_rank_loads_its_own_layers_alone(tmp_path: Path) -> None:
    model = renamed()
    trained = built(model, seed=1)
    path = write(original_state(model, trained), tmp_path / "w.safetensors")
    last = {1: model.build_layer(1, 0)}
    load_initial_weights(path, model, last)
    assert torch.equal(last[1].q0, trained[0].p0)


@pytest.mark.parametrize("model", [renamed(), create_model(TIED, TEXT)], ids=lambda m: m.name)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lack", r"--init-from .* lacks {name} of model"),
        ("add", "has tensors that the model does not have: elsewhere.weight of model"),
        ("transpose", r"has the wrong shape or type for {name} \(float32\[2, 3\] instead of"),
        ("number", r"has the wrong shape or type for {name} \(int64"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    model: LayeredModel, change: str, message: str, tmp_path: Path
) -> None:
    layers = built(model)
    state = original_state(model, layers)
    name = next(key for key in state if "norm" in key)
    if change == "lack":
        del state[name]
    elif change == "add":
        state["elsewhere.weight"] = torch.zeros(1)
    elif change == "transpose":
        state[name] = torch.zeros(2, 3)
    else:
        state[name] = state[name].long()
    path = write(state, tmp_path / "w.safetensors")
    before = {key: tensor.clone() for key, tensor in tensors(layers).items()}
    with pytest.raises(InputError, match=message.format(name=name)):
        load_initial_weights(path, model, layers)
    assert same(tensors(layers), before), "a file that is refused changes nothing"


def test_a_superfluous_layer_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    layers = built(renamed())
    state = {f"layer.{name}": tensor for name, tensor in tensors(layers).items()}
    state["optimizer.0.p0/momentum_buffer"] = torch.zeros(1)
    load_initial_weights(write(state, tmp_path / "good.safetensors"), renamed(), layers)
    for name in ("layer.2.weight", "layer.1.weight"):
        path = write({**state, name: torch.zeros(1)}, tmp_path / "bad.safetensors")
        with pytest.raises(InputError, match=f"does not have: {name} of model"):
            load_initial_weights(path, renamed(), layers)


@pytest.mark.parametrize("content", [None, b"not tensors at all"])
def test_a_file_that_is_no_safetensors_file_is_refused(
    content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"--init-from .*w.safetensors cannot be read"):
        load_initial_weights(path, renamed(), {})


def train(folder: Path, **more: object) -> RunResult:
    settings = checked_settings(
        **{
            "model": "resnet20,width=2",
            "dataset": "digits,size=8",
            "batch_size": 32,
            "micro_batches": 2,
            "steps": 12,
            **more,
        }
    )
    result = Training(settings, SingleProcess()).run(folder, None)
    assert result is not None
    return result


def accuracy(layers: dict[int, nn.Module]) -> float:
    test = load_dataset("digits,size=8").test
    everything = torch.arange(len(test))
    with torch.no_grad():
        logits = nn.Sequential(*layers.values()).eval()(test.inputs(everything))
    return (logits.argmax(-1) == test.targets(everything)).double().mean().item()


def test_a_trained_run_is_exported_and_another_starts_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(tmp_path / "run")
    out = tmp_path / "made" / "weights.safetensors"
    assert run_guarded(app, ["export", str(tmp_path / "run"), "--out", str(out)]) == EXIT_DONE
    assert "of resnet20,width=2 after step 12 written to" in " ".join(
        capsys.readouterr().out.split()
    )

    model = create_model("resnet20,width=2", load_dataset("digits,size=8").shape)
    (checkpoint,) = (tmp_path / "run" / "checkpoint").glob("step-*/rank-0.safetensors")
    for source in (out, checkpoint):
        layers = built(model, seed=9)
        load_initial_weights(source, model, layers)
        assert accuracy(layers) == pytest.approx(result.test_accuracy[-1])
    prefixes = tuple(f"{layer.name}." for layer in model.layers)
    assert all(name.startswith(prefixes) for name in load_file(out))

    first = train(tmp_path / "from-start", steps=1).train_loss[0]
    onward = train(tmp_path / "onward", steps=1, seed=0, init_from=str(out))
    again = train(tmp_path / "again", steps=1, seed=0, init_from=str(checkpoint))
    assert onward.train_loss[0] < 0.8 * first
    assert onward.weights_sha256 == again.weights_sha256


OWN = """
import torch
from torch import nn


class Network(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = nn.Linear(8 * 64, 32)
        self.again = nn.Linear(32, 32, bias=False)
        self.same = nn.Linear(32, 32, bias=False)
        self.same.weight = self.again.weight
        self.dropout = nn.Dropout(0.1)
        self.register_buffer("scale", torch.ones(1), persistent=False)
        self.last = nn.Linear(32, classes)

    def forward(self, x):
        x = torch.relu(self.inner(self.stem(x).flatten(1)))
        x = x + torch.tanh(self.same(torch.tanh(self.again(x)))) * self.scale
        return self.last(self.dropout(x))


def network(shape):
    return Network(shape.classes)
"""


def test_a_trained_module_goes_back_into_the_users_own_and_starts_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"own_network_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    settings = {"model": f"{module}:network", "optimizer": {"lr": 0.02}, "seed": 4}
    result = train(tmp_path / "run", steps=40, **settings)
    assert result.test_accuracy[-1] > 0.5
    out = tmp_path / "weights.safetensors"
    assert run_guarded(app, ["export", str(tmp_path / "run"), "--out", str(out)]) == EXIT_DONE

    network = sys.modules[module].Network(10)
    network.load_state_dict(load_file(out), strict=True)
    assert accuracy({0: network}) == pytest.approx(result.test_accuracy[-1])
    save_model(network, out)  # without the second name of what is shared
    onward = train(tmp_path / "onward", steps=1, init_from=str(out), **settings)
    assert onward.train_loss[0] < 0.5 * result.train_loss[0]


OWN_TASK = """
from torch import nn
from torch.utils.data import Dataset
import torch

class Boxes(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.full((4,), index / 64), {"kind": index % 2, "size": index / 64}

def boxes(data_dir):
    return Boxes(), Boxes()

def network(shape):
    return [lambda: nn.Linear(4, 2), nn.Tanh]

def loss(outputs, targets):
    return (outputs[:, 0] - targets["size"]).square().mean()
"""


def test_a_run_by_a_loss_of_ones_own_is_exported_where_no_usual_one_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"own_task_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(OWN_TASK, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    own = {name: f"{module}:{name}" for name in ("network", "boxes", "loss")}
    train(
        tmp_path / "run",
        steps=1,
        model=own["network"],
        dataset=own["boxes"],
        loss=own["loss"],
    )
    out = tmp_path / "weights.safetensors"
    assert run_guarded(app, ["export", str(tmp_path / "run"), "--out", str(out)]) == EXIT_DONE
    assert sorted(tensor.shape for tensor in load_file(out).values()) == [(2,), (2, 4)]


def test_a_run_without_a_checkpoint_cannot_be_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", steps=1, checkpoint_epochs=0)
    out = str(tmp_path / "w.safetensors")
    assert run_guarded(app, ["export", str(tmp_path / "run"), "--out", out]) == EXIT_BAD_INPUT
    assert "has no checkpoint in" in capsys.readouterr().err
