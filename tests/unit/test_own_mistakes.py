"""What users get to read when their own model or data set is wrong: one sentence that helps."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hpc_lpm.cli import profile  # noqa: F401  registers the command
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, run_guarded
from hpc_lpm.data.dataset import DataShape
from hpc_lpm.data.registry import dataset_shape, load_dataset
from hpc_lpm.engine.faults import Faults
from hpc_lpm.errors import InputError
from hpc_lpm.models.capture.refusal import place_of
from hpc_lpm.models.layered import cross_entropy
from hpc_lpm.models.registry import create_model
from hpc_lpm.user_functions import describe_raised

IMAGES = DataShape("image", (4,), 3)

DATA = """
import numpy as np
import torch
from torch.utils.data import TensorDataset
from hpc_lpm.data.dataset import Dataset, DataShape, Split

INPUTS, TARGETS = torch.rand(12, 4), torch.arange(12) % 3
SHAPE, SPLIT = DataShape("image", (4,), 3), Split(INPUTS, TARGETS)


def made(shape=SHAPE, train=SPLIT, test=SPLIT):
    return Dataset("mine", shape, train, test)


def good(data_dir, size: int = 1):
    return made()

def torchs(data_dir):
    return TensorDataset(INPUTS, TARGETS)

def pair(data_dir):
    return made(train=(INPUTS, TARGETS))

def shape_as_tuple(data_dir):
    return made(shape=(4,))

def no_classes(data_dir):
    return made(shape=DataShape("image", (4,)))

def none_classes(data_dir):
    return made(shape=DataShape("image", (4,), None))

def with_samples(data_dir):
    return made(shape=DataShape("image", (12, 4), 3))

def odd_shape(data_dir):
    return made(shape=DataShape("image", (4, 0), 3))

def odd_kind(data_dir):
    return made(shape=DataShape("table", (4,), 3))

def too_few_classes(data_dir):
    return made(shape=DataShape("image", (4,), 2))

def from_one(data_dir):
    return made(test=Split(INPUTS, TARGETS + 1))

def negative(data_dir):
    return made(train=Split(INPUTS, TARGETS - 1))

def real_targets(data_dir):
    return made(train=Split(INPUTS, TARGETS.float()))

def arrays(data_dir):
    return made(train=Split(np.zeros((12, 4)), TARGETS))

def lengths(data_dir):
    return made(train=Split(INPUTS[:5], TARGETS))

def empty(data_dir):
    return made(train=Split(INPUTS[:0], TARGETS[:0]))

def no_test(data_dir):
    return made(test=Split(INPUTS[:0], TARGETS[:0]))

def whole_images(data_dir):
    return made(train=Split(INPUTS.long(), TARGETS))

def real_tokens(data_dir):
    return made(shape=DataShape("text", (4,), 3))

def unknown_token(data_dir):
    tokens = Split(torch.full((12, 4), 7), TARGETS)
    return made(shape=DataShape("text", (4,), 3), train=tokens, test=tokens)

def no_argument():
    return made()

def only_options(*, size=1):
    return made()

def no_default(data_dir, size):
    return made()

def raises(data_dir):
    names = {}
    return names["train"]

def raises_within_torch(data_dir):
    return INPUTS @ TARGETS

class Spirals(torch.utils.data.Dataset):
    def __init__(self, data_dir):
        pass

NUMBER = 5
"""

MODELS = """
import torch
from torch import nn
from hpc_lpm.models.layered import Layer, LayeredModel, Tie, count_correct, cross_entropy


def good(shape, width: int = 8):
    return [lambda: nn.Linear(4, width), lambda: nn.Linear(width, shape.classes)]

def sequential(shape):
    return nn.Sequential()

def example(shape):
    return nn.Linear(4, 3), torch.zeros(2, 5)

def names(shape):
    return ["linear"]

def nothing(shape):
    pass

def none(shape):
    return []

def without_lambda(shape):
    return [nn.Flatten, nn.Linear]

def returns_class(shape):
    return [lambda: nn.ReLU]

def fails(shape):
    return [lambda: nn.Flatten(nn.Linear(4, 3).weight.view(5))]

def pair_at_the_end(shape):
    class Twice(nn.Module):
        def forward(self, inputs):
            return inputs, inputs
    return [lambda: nn.Linear(4, 3), Twice]

def layers_of_modules(shape):
    return LayeredModel("mine", (nn.Linear(4, 3),), cross_entropy, count_correct)

def no_layers(shape):
    return LayeredModel("mine", (), cross_entropy, count_correct)

def stray_tie(shape):
    layers = (Layer("a", nn.Flatten), Layer("b", nn.Flatten))
    return LayeredModel("mine", layers, cross_entropy, count_correct, (Tie(0, "x", 2, "x"),))

def no_argument():
    return [nn.Flatten]

def raises(shape):
    channels, height, width = shape.input_shape
    return [nn.Flatten]

def narrow(shape):
    return [lambda: nn.Linear(5, 3)]

class Net(nn.Module):
    def __init__(self, shape):
        super().__init__()
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_wrong_data.py").write_text(DATA, encoding="utf-8")
    (folder / "own_wrong_models.py").write_text(MODELS, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def there(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)


def test_a_file_beside_the_toolkit_is_the_users() -> None:
    beside = f"{Path(inspect.getfile(describe_raised)).parent}_mine.py"
    names: dict[str, Any] = {}
    exec(compile("def fails():\n    raise ValueError('odd')\n", beside, "exec"), names)
    with pytest.raises(ValueError, match="odd") as caught:
        names["fails"]()
    assert describe_raised(caught.value) == f"ValueError: odd ({beside}, line 2)"
    assert place_of(caught.value) == f"{beside}, line 2"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("torchs", r"returned torch.utils.data.\w+.TensorDataset, accepted are .train, test."),
        ("pair", "the training part of .*:pair' is tuple, accepted is Split"),
        ("shape_as_tuple", "shape of data set .* is tuple, accepted is a DataShape such as"),
        ("no_classes", r"raises TypeError: .*'classes' \(.*own_wrong_data.py, line \d+\)"),
        ("none_classes", "none_classes': the number of classes is None, accepted is a whole"),
        ("with_samples", r"inputs of shape \(4,\), its DataShape says \(12, 4\): make the two"),
        ("odd_shape", r"shape of one input is \(4, 0\), accepted are whole numbers from 1"),
        ("odd_kind", "kind of data is 'table', accepted are 'image'.*, 'text'"),
        ("too_few_classes", "has the target 2, accepted for 2 classes are 0 to 1: number them"),
        ("from_one", "the test part .* has the target 3, accepted for 3 classes are 0 to 2"),
        ("negative", "the training part .* has the target -1, accepted for 3 classes"),
        ("real_targets", "has targets float32.*accepted for the task .classes. are integer targ"),
        ("arrays", "inputs of a split are ndarray, accepted is a torch.Tensor.*from_numpy"),
        ("lengths", "a split has 5 inputs and 12 targets"),
        ("empty", "the training part of data set 'own_wrong_data:empty' is empty: put at least"),
        ("no_test", "the test part of .* is empty"),
        ("whole_images", "has integers as inputs, accepted for kind 'image' are uint8 or float"),
        ("real_tokens", "has floating-point numbers as inputs, accepted for kind 'text' are int"),
        ("unknown_token", "has the token 7, accepted for 3 classes are 0 to 2"),
        ("no_argument", r"takes no positional argument, accepted is a function no_argument\(data"),
        ("only_options", r"takes no positional argument, accepted is .*only_options\(data_dir"),
        ("no_default", "lacks the option 'size', .* write own_wrong_data:no_default,size=value"),
        ("raises", r"raises KeyError: 'train' \(.*own_wrong_data.py, line \d+\): correct it"),
        ("raises_within_torch", r"raises RuntimeError: .*own_wrong_data.py, line \d+\)"),
        (
            "Spirals",
            r"a class, accepted is a function Spirals\(data_dir, ...\) that returns .train",
        ),
        ("NUMBER", "is not callable but of type int, accepted is a function NUMBER"),
        ("god", "has no name 'god', did you mean 'good'"),
        ("good,sise=3", r"unknown option 'sise', did you mean 'size'\? \(accepted are size\)"),
        ("good,size=big", "option 'size' .* is 'big', accepted is a whole number"),
    ],
)
def test_wrong_data_sets_are_explained(name: str, sentence: str) -> None:
    for ask in (load_dataset, dataset_shape):
        with pytest.raises(InputError, match=sentence):
            ask(f"own_wrong_data:{name}")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("sequential", "Sequential cannot be captured, since it computes nothing"),
        ("example", "Linear raises RuntimeError: mat1 and mat2 .* correct the module, or return"),
        ("names", "layer 'layer0' is given as str, accepted is a callable without arguments"),
        ("nothing", "returned NoneType, accepted are a LayeredModel, .* or a non-empty list"),
        ("none", "returned an empty list, accepted are"),
        ("layers_of_modules", "model 'mine' has layers of type Linear, accepted is at least one"),
        ("no_layers", "model 'mine' has layers of type nothing, accepted is at least one"),
        ("stray_tie", "model 'mine' ties layers 0 and 2, accepted are 0 to 1: correct"),
        ("no_argument", r"takes no positional argument, accepted is .*no_argument\(shape, ...\)"),
        ("raises", r"raises ValueError: not enough values .*own_wrong_models.py, line \d+\)"),
        ("Net", r"is a class, accepted is a function Net\(shape, ...\) that returns a list of"),
        ("good,widht=3", r"unknown option 'widht', did you mean 'width'\? \(accepted are width\)"),
    ],
)
def test_wrong_models_are_explained(name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        create_model(f"own_wrong_models:{name}", IMAGES)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "without_lambda",
            r"layer 1 \(layer1\) .* cannot be built, TypeError: [^()]*\(\) [^()]*: ",
        ),
        ("fails", r"cannot be built, RuntimeError: .*own_wrong_models.py, line \d+\): its"),
        ("returns_class", "layer 0 .* is built as class ReLU, accepted is a torch.nn.Module"),
    ],
)
def test_layers_that_cannot_be_built_are_named(name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        create_model(f"own_wrong_models:{name}", IMAGES)


@pytest.mark.parametrize(
    ("model", "dataset", "sentence"),
    [
        (
            "own_wrong_models:good",
            f"text:{__file__},sequence=4",
            r"layer 0 .* on its inputs int64\[2, 4\]: .*must accept what the data set holds",
        ),
        (
            "own_wrong_models:narrow",
            "own_wrong_data:good",
            r"layer 0 .* on its inputs float32\[2, 4\]: .*shapes",
        ),
        (
            "own_wrong_models:pair_at_the_end",
            "own_wrong_data:good",
            "layer 1 .* the last layer returned tuple",
        ),
        ("gpt", "own_wrong_data:good", r"gpt takes text, the data set holds image of shape \(4,"),
        ("resnet20", "own_wrong_data:good", "resnet20 takes images .*holds image of shape"),
    ],
)
def test_inputs_of_a_wrong_kind_for_the_model_are_explained(
    model: str, dataset: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["profile", model, "--dataset", dataset, "--micro-batch", "2", "--out", "p.json"]
    assert run_guarded(app, command) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(sentence, said)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("x = 1\ny = x / 0\n", r"raises ZeroDivisionError: .*broken_module.py, line 2\): correct"),
        ("def f(:\n", r"raises SyntaxError: .*broken_module.py, line 1\): correct it"),
        ("import sys\nsys.exit(3)\n", r"raises SystemExit: 3 .* under if __name__ == .__main__."),
        ("import no_such_package\n", "install no_such_package, which it imports, or correct"),
        ("from torch import tensr\n", "raises ImportError: cannot import name 'tensr'"),
    ],
)
def test_modules_that_raise_on_import_are_explained(
    content: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken_module.py").write_text(content, encoding="utf-8")
    sys.modules.pop("broken_module", None)
    with pytest.raises(InputError, match=sentence):
        create_model("broken_module:make", IMAGES)
    with pytest.raises(InputError, match=sentence):
        load_dataset("broken_module:make")


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        (".own_wrong_models", "is relative, accepted .* write own_wrong_models:good"),
        ("./own_wrong_models.py", "is relative, accepted .* write own_wrong_models:good"),
        ("own_wrong_models.py", "name a module instead of a file, own_wrong_models:good"),
        ("folder/own_models.py", "name a module instead of a file, folder.own_models:good"),
        ("/home/me/own_models.py", "instead of a file, own_models:good, from /home/me"),
        ("own_wrong_model", "No module named 'own_wrong_model'.*that Python finds from here"),
    ],
)
def test_modules_named_in_another_way_are_explained(module: str, advice: str) -> None:
    with pytest.raises(InputError, match=advice):
        create_model(f"{module}:good", IMAGES)


def test_a_loss_that_is_given_a_pair_says_so() -> None:
    outputs = torch.zeros(2, 3)
    with pytest.raises(TypeError, match="the last layer returned tuple, the loss takes a tensor"):
        cross_entropy((outputs, outputs), torch.tensor([0, 1]))  # type: ignore[arg-type]


def test_a_sentence_about_own_data_or_functions_only_gains_where_training_stood() -> None:
    raised = InputError("sample 3 of the training part cannot be loaded: leave it out.")
    faults = Faults(create_model("mlp", IMAGES), {}, rank=1, stage=1)
    described = faults.describe(raised, "micro-batch 5")
    assert str(described) == f"stage 1 (rank 1), micro-batch 5: {raised}"


def test_good_ones_pass_the_same_checks() -> None:
    dataset = load_dataset("own_wrong_data:good,size=3")
    model = create_model("own_wrong_models:good,width=5", dataset.shape)
    hidden = model.build_layer(0, 0)(dataset.train.inputs(torch.arange(2)))
    assert model.build_layer(1, 0)(hidden).shape == (2, 3)


def test_validate_names_a_layer_that_cannot_run(tmp_path: Path) -> None:
    (tmp_path / "own_misfit.py").write_text(
        "from torch import nn\n"
        "def misfit(shape):\n"
        "    return [nn.Flatten, lambda: nn.Linear(64, 8), lambda: nn.Linear(9, 10)]\n"
    )
    campaign = "name: own\nmodels: ['own_misfit:misfit']\ndatasets: ['digits,size=8']\nepochs: 1\n"
    campaign += "strategies: [sequential, fbp]\n"
    (tmp_path / "own.yaml").write_text(campaign)
    done = subprocess.run(
        [sys.executable, "-m", "hpc_lpm", "validate", "own.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert re.search(r"layer 2 \(layer2\) .* fails on its inputs float32\[16, 8\]", done.stderr)
