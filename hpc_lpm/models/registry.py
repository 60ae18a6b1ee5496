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

It returns callables without arguments that build one layer each, which are trained with cross
entropy, or a `hpc_lpm.models.layered.LayeredModel`. A model for the toolkit itself is one file
beside this one and one line below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

from torch import nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.errors import InputError
from hpc_lpm.extensions import Registry
from hpc_lpm.identifiers import (
    convert_options,
    find_entry,
    option_defaults,
    parse_identifier,
)
from hpc_lpm.models.gpt import gpt
from hpc_lpm.models.layered import Layer, LayeredModel, count_correct, cross_entropy
from hpc_lpm.models.mlp import mlp
from hpc_lpm.models.random_streams import seeded_generators
from hpc_lpm.models.replay import replay
from hpc_lpm.models.resnet import resnet
from hpc_lpm.models.vgg import vgg
from hpc_lpm.user_functions import first_line, user_function


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
        fixed = self._fixed_at(Path(parsed.argument or ""))
        options = convert_options(parsed, self.factory, fixed)
        return replace(self.factory(shape, **fixed, **options), name=identifier)

    def _fixed_at(self, path: Path) -> dict[str, Any]:
        return {**self.fixed, "path": path} if self.takes_path else dict(self.fixed)


def create_model(identifier: str, shape: DataShape, seed: int = 0) -> LayeredModel:
    """Create the model `name`, `name:PATH` or `module:callable`, each with `,option=value ...`.

    The model's name is the identifier, so that models with different options have different names
    in files. Whatever is drawn at random meanwhile, such as the weights of modules that a user's
    function builds at once, depends on the seed alone.

    Raises:
        InputError: if the name, an option or a value is unknown, or does not suit the data, or if
            the user's own function fails or returns something else than a model.
    """
    entry = find_entry(MODELS, parse_identifier(identifier))
    with seeded_generators(seed):
        return entry.create(identifier, shape)


def _users_own(name: str, found: object) -> ModelEntry:
    factory = user_function("model", name, found, "shape", "a list of callables, one a layer")

    @wraps(factory)
    def checked(shape: DataShape, **options: object) -> LayeredModel:
        return _as_model(name, factory(shape, **options))

    return ModelEntry(first_line(found) or "your own", checked)


def _as_model(name: str, made: object) -> LayeredModel:
    """Return what a user's function made as a model.

    Raises:
        InputError: if it is neither a model nor a list of builders.
    """
    if isinstance(made, LayeredModel):
        return made
    accepted = (
        "accepted are a LayeredModel or a non-empty list of callables that build one layer each"
    )
    if isinstance(made, nn.Module):
        raise InputError(
            f"model {name!r} returned the module {type(made).__name__}, {accepted}: return "
            "[lambda: nn.Linear(64, 10), ...], with one lambda for each layer."
        )
    if not isinstance(made, list | tuple) or not made:
        empty = "an empty " if isinstance(made, list | tuple) else ""
        raise InputError(f"model {name!r} returned {empty}{type(made).__name__}, {accepted}.")
    try:
        layers = tuple(Layer(f"layer{number}", build) for number, build in enumerate(made))
    except InputError as error:
        raise InputError(f"model {name!r}: {error}") from None
    return LayeredModel(name, layers, cross_entropy, count_correct)


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
        "replay": ModelEntry(
            "replay:PROFILE, devices emulated by sleeping", replay, takes_path=True
        ),
    },
    _users_own,
)
