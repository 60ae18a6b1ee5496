"""Every model by name, and how users add their own.

A model is named wherever one is asked for, as in `--model` or under `models:` in a campaign:

* `resnet56,width=32`: one that comes with the toolkit, with options
* `replay:profile.json`: a name followed by a path
* `my_models:perceptron,width=128`: the user's function `perceptron` in `my_models.py`, which Python
  finds in the current directory or among the installed packages
* `perceptron,width=128`: the same from an installed package whose `pyproject.toml` has

      [project.entry-points."hpc_lpm.models"]
      perceptron = "my_models:perceptron"

The function is called with the shape of the data (`hpc_lpm.data.dataset.DataShape`) and with the
options as keywords; their annotations or else their looks tell the types:

    def perceptron(shape, width: int = 64):
        return [nn.Flatten, lambda: nn.Linear(64, width), lambda: nn.Linear(width, shape.classes)]

It returns one of these, which are trained with the loss that suits the data, or that of `--loss`:

* a list of modules, or of callables without arguments that build one layer each
* an `nn.Sequential`, whose children are the layers
* DeepSpeed's `LayerSpec`s, in a list
* any other module, or `(module, example_input)`: it is captured with torch.export and divided into
  layers (`hpc_lpm.models.capture`); the example is a tensor of a few samples, a tuple of positional
  or a dictionary of keyword arguments, by default a few samples like the data's

or a `hpc_lpm.models.layered.LayeredModel`, which may have another loss. A model for the toolkit
itself is one file beside this one and one line below.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpc_lpm.activation import Activation
from hpc_lpm.data.dataset import DataShape
from hpc_lpm.errors import InputError
from hpc_lpm.extensions import Registry
from hpc_lpm.identifiers import (
    convert_options,
    find_entry,
    option_defaults,
    parse_identifier,
    user_path,
)
from hpc_lpm.models.gpt import gpt
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.listed import listed_model
from hpc_lpm.models.mlp import mlp
from hpc_lpm.models.objective import with_objective
from hpc_lpm.models.replay import replay
from hpc_lpm.models.resnet import resnet
from hpc_lpm.models.sharing import with_shared_parts_known
from hpc_lpm.models.transformers_model import transformers_model
from hpc_lpm.models.vgg import vgg
from hpc_lpm.random_streams import seeded_generators
from hpc_lpm.user_functions import first_line, user_function

_EXAMPLE_SAMPLES = 3


@dataclass(frozen=True)
class ModelEntry:
    """A model of the registry.

    `factory(shape, **options)` makes it; its keyword parameters, except those that are `fixed`, are
    the options that users may give. Where the model `takes_path`, the factory is given the path
    after the colon as its keyword `path`.
    """

    description: str
    factory: Callable[..., LayeredModel]
    fixed: Mapping[str, object] = field(default_factory=dict)
    takes_path: bool = False

    def options(self) -> dict[str, object]:
        """Return the options with their defaults."""
        return option_defaults(self.factory, self._fixed_at(Path()))

    def create(self, identifier: str, shape: DataShape) -> LayeredModel:
        """Create the model with the path and options of `identifier`, which becomes its name.

        Raises:
            InputError: if an option or a value is unknown, or does not suit the data.
        """
        parsed = parse_identifier(identifier)
        fixed = self._fixed_at(user_path(parsed.argument or ""))
        options = convert_options(parsed, self.factory, fixed)
        return replace(self.factory(shape, **fixed, **options), name=identifier)

    def _fixed_at(self, path: Path) -> dict[str, Any]:
        return {**self.fixed, "path": path} if self.takes_path else dict(self.fixed)


def create_model(
    identifier: str,
    shape: DataShape,
    seed: int = 0,
    *,
    loss: str | None = None,
    metrics: Sequence[str] = (),
) -> LayeredModel:
    """Create the model `name`, `name:PATH` or `module:callable`, each with `,option=value ...`.

    It has the loss and the metrics that suit the data's task, unless others are named.

    The model's name is the identifier, so that models with different options have different names
    in files. Whatever is drawn at random meanwhile, such as the weights of modules that a user's
    function builds at once, depends on the seed alone.

    Raises:
        InputError: if the name, an option or a value is unknown, or does not suit the data, or if
            the user's own function fails or returns something else than a model.
    """
    entry = find_entry(MODELS, parse_identifier(identifier))
    with seeded_generators(seed):
        made = entry.create(identifier, shape)
    return with_objective(made, shape, loss, metrics)


def _users_own(name: str, found: object) -> ModelEntry:
    factory = user_function("model", name, found, "shape", "a list of callables, one a layer")

    @wraps(factory)
    def checked(shape: DataShape, **options: object) -> LayeredModel:
        return _as_model(name, factory(shape, **options), shape)

    return ModelEntry(first_line(found) or "your own", checked)


def _as_model(name: str, made: object, shape: DataShape) -> LayeredModel:
    """Return what a user's function made as a model.

    Raises:
        InputError: if it is none of what is accepted, or a module that cannot be divided.
    """
    if isinstance(made, LayeredModel):
        return with_shared_parts_known(made)
    if isinstance(made, nn.Module):
        return _divided(name, made, example_input(shape))
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        module, example = made
        if not isinstance(example, nn.Module) and not callable(example):
            return _divided(name, module, example, captured=True)
    accepted = (
        "accepted are a LayeredModel, a module, (module, example_input), or a non-empty list of "
        "modules or of callables that build one layer each"
    )
    if not isinstance(made, list | tuple) or not made:
        empty = "an empty " if isinstance(made, list | tuple) else ""
        raise InputError(f"model {name!r} returned {empty}{type(made).__name__}, {accepted}.")
    try:
        return listed_model(name, made)
    except InputError as error:
        raise InputError(f"model {name!r}: {error}") from None


def _divided(
    name: str, module: nn.Module, example: Activation, *, captured: bool = False
) -> LayeredModel:
    """Return a module as a chain: the children of an nn.Sequential, or what is captured of it."""
    # Imported here, because torch.export takes a while to import.
    from hpc_lpm.models.capture import capture_model, is_sequence, layers_of

    if is_sequence(module) and not captured:
        return layers_of(module, name)
    return capture_model(module, example, name=name)


def example_input(shape: DataShape, samples: int = _EXAMPLE_SAMPLES) -> Activation:
    """Return samples like those of the data: images [n, ...], tokens [n, length] or its example.

    Of data of another kind there are as many samples as in the example.
    """
    if shape.kind == "other":
        return shape.example
    size = (samples, *shape.input_shape)
    if shape.kind == "image":
        return torch.randn(size)
    return torch.randint(0, shape.vocabulary, size)


MODELS = Registry(
    "model",
    "hpc_lpm.models",
    {
        "resnet20": ModelEntry(
            "ResNet-20 for small images, 0.27 M parameters", resnet, {"depth": 20}
        ),
        "resnet32": ModelEntry(
            "ResNet-32 for small images, 0.46 M parameters", resnet, {"depth": 32}
        ),
        "resnet44": ModelEntry(
            "ResNet-44 for small images, 0.66 M parameters", resnet, {"depth": 44}
        ),
        "resnet56": ModelEntry(
            "ResNet-56 for small images, 0.85 M parameters", resnet, {"depth": 56}
        ),
        "resnet110": ModelEntry(
            "ResNet-110 for small images, 1.7 M parameters", resnet, {"depth": 110}
        ),
        "vgg11": ModelEntry("VGG-11 with batch normalisation, small images", vgg, {"depth": 11}),
        "vgg16": ModelEntry("VGG-16 with batch normalisation, small images", vgg, {"depth": 16}),
        "mlp": ModelEntry("perceptron on flattened images", mlp),
        "gpt": ModelEntry("small decoder-only transformer for text", gpt),
        "hf": ModelEntry(
            "hf:CONFIG.json or hf:FOLDER, a model of the package transformers",
            transformers_model,
            takes_path=True,
        ),
        "replay": ModelEntry(
            "replay:PROFILE, devices emulated by sleeping", replay, takes_path=True
        ),
    },
    _users_own,
)
