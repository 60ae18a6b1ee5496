"""Every model by name. A new model is one file beside this one and one line below."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.data.identifier import (
    Identifier,
    accepted_options,
    convert_options,
    parse_identifier,
)
from hpc_lpm.errors import InputError, closest
from hpc_lpm.models.gpt import gpt
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.mlp import mlp
from hpc_lpm.models.own import create_own_model
from hpc_lpm.models.replay import replay
from hpc_lpm.models.resnet import resnet
from hpc_lpm.models.vgg import vgg


@dataclass(frozen=True)
class ModelEntry:
    """A model of the registry.

    `factory(shape, **options)` makes it; its keyword parameters, but for those that are `fixed`,
    are the options that users may give.
    """

    description: str
    factory: Callable[..., LayeredModel]
    fixed: Mapping[str, object] = field(default_factory=dict)

    def options(self) -> dict[str, object]:
        """Return the options with their defaults."""
        accepted = accepted_options(self.factory, self.fixed)
        return {name: parameter.default for name, parameter in accepted.items()}


MODELS: dict[str, ModelEntry] = {
    "resnet20": ModelEntry("ResNet-20 for small images, 0.27 M parameters", resnet, {"depth": 20}),
    "resnet32": ModelEntry("ResNet-32 for small images, 0.46 M parameters", resnet, {"depth": 32}),
    "resnet44": ModelEntry("ResNet-44 for small images, 0.66 M parameters", resnet, {"depth": 44}),
    "resnet56": ModelEntry("ResNet-56 for small images, 0.85 M parameters", resnet, {"depth": 56}),
    "resnet110": ModelEntry(
        "ResNet-110 for small images, 1.7 M parameters", resnet, {"depth": 110}
    ),
    "vgg11": ModelEntry("VGG-11 with batch normalisation, small images", vgg, {"depth": 11}),
    "vgg16": ModelEntry("VGG-16 with batch normalisation, small images", vgg, {"depth": 16}),
    "mlp": ModelEntry("perceptron on flattened images", mlp),
    "gpt": ModelEntry("small decoder-only transformer for text", gpt),
}

MODELS_FROM_FILES: dict[str, Callable[[DataShape, Path], LayeredModel]] = {"replay": replay}
"""Models named `name:PATH`, made from the file at that path."""


def create_model(identifier: str, shape: DataShape) -> LayeredModel:
    """Create the model `name[,option=value ...]`, `name:PATH` or `package.module:callable`.

    The last is the user's own. The model's name is the identifier, so that models of different
    options are told apart in files.

    Raises:
        InputError: if the name, an option or a value is unknown, or does not suit the data.
    """
    parsed = parse_identifier(identifier)
    if parsed.name in MODELS_FROM_FILES:
        return replace(_create_from_file(parsed, shape), name=identifier)
    if parsed.argument is not None:
        return replace(create_own_model(parsed, shape), name=identifier)
    entry = MODELS.get(parsed.name)
    if entry is None:
        accepted = [*MODELS, *(f"{name}:PATH" for name in MODELS_FROM_FILES)]
        raise InputError(
            f"model {parsed.name!r} is unknown{closest(parsed.name, accepted)} (accepted are "
            f"{', '.join(accepted)} and package.module:callable)."
        )
    options = convert_options(parsed, entry.factory, entry.fixed)
    return replace(entry.factory(shape, **entry.fixed, **options), name=identifier)


def _create_from_file(identifier: Identifier, shape: DataShape) -> LayeredModel:
    if not identifier.argument:
        raise InputError(
            f"model {identifier.text!r} is not complete, accepted is {identifier.name}:PATH: name "
            "the file that it is made from."
        )
    factory = MODELS_FROM_FILES[identifier.name]
    path = Path(identifier.argument)
    return factory(shape, path, **convert_options(identifier, factory, {"path": path}))
