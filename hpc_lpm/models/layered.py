"""A network as a list of fine-grained layers, each of which can be built on its own."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from hpc_lpm.errors import InputError
from hpc_lpm.models.evaluation_metrics import EvaluationMetric, accuracy_by, count_correct
from hpc_lpm.models.free_memory import return_free_memory
from hpc_lpm.models.losses import Loss, cross_entropy
from hpc_lpm.random_streams import generators_kept, set_generators, torch_seed
from hpc_lpm.user_functions import describe_raised


@dataclass(frozen=True)
class ModuleEnd:
    """A module of the user's whose computation ends with a layer: its path and its class's name."""

    path: str
    type: str


@runtime_checkable
class WeightHolder(Protocol):
    """A builder that holds the weights with which it builds; tied weights are equal in it."""

    def __call__(self) -> nn.Module:
        """Build the layer with copies of the weights."""

    def release(self) -> None:
        """Let go of the weights; the layer cannot be built any more."""


@dataclass(frozen=True)
class Layer:
    """One layer: its name within the model and a callable that builds it on the CPU.

    The module is called with one argument, the `Activation` that the layer before it returned (a
    tuple is not unpacked). `ends` are the modules of the user's that end with this layer, from the
    innermost to the outermost. Layers with an equal `same_as`, unless it is empty, have the same
    operations, shapes and constants, so that only some of them are timed. `original` gives for
    parameters and buffers of the layer their names in the state_dict of the user's module, if the
    layer was made from one, and `holders` the classes of the parts of that module that hold them.
    No stage ends with a layer whose `cut_after` is False, since it and the next one belong
    together.

    Raises:
        InputError: if `build` is not callable, or is a module itself.
    """

    name: str
    build: Callable[[], nn.Module]
    ends: tuple[ModuleEnd, ...] = ()
    same_as: str = ""
    original: Mapping[str, str] = field(default_factory=dict)
    holders: Mapping[str, type[nn.Module]] = field(default_factory=dict)
    cut_after: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.build, nn.Module):
            raise InputError(
                f"layer {self.name!r} is given as the module {type(self.build).__name__}, accepted "
                "is a callable that builds it anew: write lambda: in front of it."
            )
        if not callable(self.build):
            raise InputError(
                f"layer {self.name!r} is given as {type(self.build).__name__}, accepted is a "
                "callable without arguments that returns a torch.nn.Module."
            )


@dataclass(frozen=True)
class Tie:
    """Two parameters that are one and the same, such as an embedding and the last projection.

    Each is named by its layer's index and its name in that layer, as in `named_parameters()`; the
    owner's layer comes first. The copy starts with the owner's values. Before each update its
    gradients are added to the owner's, and after it the copy takes the owner's new values.

    Raises:
        InputError: if the owner's layer does not come first.
    """

    owner_layer: int
    owner_parameter: str
    copy_layer: int
    copy_parameter: str

    def __post_init__(self) -> None:
        if self.owner_layer >= self.copy_layer:
            raise InputError(
                f"parameter {self.copy_parameter!r} of layer {self.copy_layer} is tied to one of "
                f"layer {self.owner_layer}, accepted is a layer before it: swap the two."
            )


@dataclass(frozen=True)
class LayeredModel:
    """A chain of layers with its loss.

    `loss(outputs, targets)` returns the mean loss of a micro-batch as a scalar tensor, and
    `correct(outputs, targets)` returns how many of the `targets.numel()` predictions are right, as
    a scalar integer tensor; it is None where predictions are neither right nor wrong. `aliases` are
    further names in the state_dict of the user's module, of tensors that the layers' `original`
    knows under the name given here. `metrics` are computed beside the share of right predictions.
    The owner of each tie is the first of all that are tied, also where a copy was given as owner.

    Raises:
        InputError: if there is no layer, one is not a `Layer`, a tie names a layer that there is
            not, or a parameter is tied to two that are not tied to each other.
    """

    name: str
    layers: tuple[Layer, ...]
    loss: Loss = cross_entropy
    correct: Callable[[Any, Any], Tensor] | None = count_correct
    ties: tuple[Tie, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[EvaluationMetric, ...] = ()

    def __post_init__(self) -> None:
        if not self.layers or not all(isinstance(layer, Layer) for layer in self.layers):
            found = ", ".join(dict.fromkeys(type(layer).__name__ for layer in self.layers))
            raise InputError(
                f"model {self.name!r} has layers of type {found or 'nothing'}, accepted is at "
                "least one hpc_lpm.models.layered.Layer."
            )
        for tie in self.ties:
            if tie.owner_layer < 0 or tie.copy_layer >= len(self.layers):
                raise InputError(
                    f"model {self.name!r} ties layers {tie.owner_layer} and {tie.copy_layer}, "
                    f"accepted are 0 to {len(self.layers) - 1}: correct the model's ties."
                )
        object.__setattr__(self, "ties", _tied_to_first_owners(self.name, self.ties))

    @property
    def evaluation_metrics(self) -> tuple[EvaluationMetric, ...]:
        """All that is computed of an evaluation beside the loss: the accuracy first, if any."""
        if self.correct is None:
            return self.metrics
        return (accuracy_by(self.correct), *self.metrics)

    def release(self, keep: Collection[int] = ()) -> None:
        """Free the weights of a module that was built whole, but those of the layers to `keep`.

        Layers that are not kept cannot be built afterwards; those that are built hold their own.
        """
        for index, layer in enumerate(self.layers):
            if index not in keep and isinstance(layer.build, WeightHolder):
                layer.build.release()
        return_free_memory()

    def build_layer(self, index: int, seed: int) -> nn.Module:
        """Build layer `index` with weights that depend only on (seed, index) and on its ties.

        The global random state is left as it was, so neither the partition nor the strategy
        can influence the weights.

        Raises:
            InputError: if the layer cannot be built, or a tie names a parameter that its layer does
                not have.
        """
        layer = self._build_untied(index, seed)
        if isinstance(self.layers[index].build, WeightHolder):
            return layer
        for tie in self.ties:
            if tie.copy_layer == index:
                owner = self._build_untied(tie.owner_layer, seed)
                copy = parameter_named(layer, tie.copy_parameter)
                values = parameter_named(owner, tie.owner_parameter)
                if copy.shape != values.shape:
                    raise InputError(
                        f"{self._describe(index)} ties {tie.copy_parameter!r}, of shape "
                        f"{list(copy.shape)}, to {tie.owner_parameter!r} of layer "
                        f"{tie.owner_layer}, of shape {list(values.shape)}, accepted is one "
                        "shape: make the two equal or leave the tie out."
                    )
                with torch.no_grad():
                    copy.copy_(values)
        return layer

    def _build_untied(self, index: int, seed: int) -> nn.Module:
        with generators_kept():
            set_generators((seed, index))
            torch.default_generator.manual_seed(torch_seed(seed, index))
            try:
                built: object = self.layers[index].build()
            except Exception as error:
                raise InputError(
                    f"{self._describe(index)} cannot be built, {describe_raised(error)}: its "
                    "builder is called without arguments and returns a torch.nn.Module."
                ) from error
        if not isinstance(built, nn.Module):
            what = f"class {built.__name__}" if isinstance(built, type) else type(built).__name__
            raise InputError(
                f"{self._describe(index)} is built as {what}, accepted is a torch.nn.Module: "
                "return the module itself from the builder."
            )
        return built

    def _describe(self, index: int) -> str:
        return f"layer {index} ({self.layers[index].name}) of model {self.name!r}"


def parameter_named(layer: nn.Module, name: str) -> nn.Parameter:
    """Return a layer's parameter by its name.

    Raises:
        InputError: if the layer has no parameter of that name.
    """
    parameters = dict(layer.named_parameters())
    if name not in parameters:
        raise InputError(
            f"a tie names parameter {name!r} of a {type(layer).__name__}, accepted are "
            f"{', '.join(parameters) or 'none'}: correct the model's ties."
        )
    return parameters[name]


def _tied_to_first_owners(model: str, ties: Sequence[Tie]) -> tuple[Tie, ...]:
    """Return the ties, each once, with owners that are copies of no other parameter.

    The gradient of a copy's copy would reach the owner, and its values the copy, a step too late.

    Raises:
        InputError: if a parameter is a copy of two that are not tied to each other.
    """
    owner_of: dict[tuple[int, str], tuple[int, str]] = {}
    for tie in ties:
        copy = tie.copy_layer, tie.copy_parameter
        owner_of.setdefault(copy, (tie.owner_layer, tie.owner_parameter))

    def first(end: tuple[int, str]) -> tuple[int, str]:
        while end in owner_of:  # ends, since each owner's layer comes before its copy's
            end = owner_of[end]
        return end

    found: dict[Tie, None] = {}
    for tie in ties:
        copy = tie.copy_layer, tie.copy_parameter
        owner, other = first((tie.owner_layer, tie.owner_parameter)), first(copy)
        if owner != other:
            raise InputError(
                f"model {model!r} ties parameter {copy[1]!r} of layer {copy[0]} to {other[1]!r} of "
                f"layer {other[0]} and to {owner[1]!r} of layer {owner[0]}, accepted is one owner: "
                "tie these two to each other, or leave one tie out."
            )
        found[Tie(*owner, *copy)] = None
    return tuple(found)
