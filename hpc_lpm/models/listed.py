"""A list of layers that a user's function returns: modules, builders, or DeepSpeed's LayerSpecs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from hpc_lpm.activation import Activation
from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import Layer, LayeredModel, Tie
from hpc_lpm.models.sharing import with_shared_parts_known


def listed_model(name: str, made: Sequence[Any]) -> LayeredModel:
    """Return the model whose layers are the entries of a list, named `layer0`, `layer1`, ...

    An entry is a builder, a `Layer`, a module or a `deepspeed.pipe.LayerSpec`. Modules may share
    parameters and be one another; specifications with one key share their parameters. Beside
    specifications, other callables are functions of the activation, as DeepSpeed takes them.

    Raises:
        InputError: if an entry is none of these, or specifications with one key have no parameter
            in common or cannot be built.
    """
    specified = any(_is_specification(entry) for entry in made)
    layers = [_layer(f"layer{number}", entry, specified) for number, entry in enumerate(made)]
    model = LayeredModel(name, tuple(layers))
    return with_shared_parts_known(replace(model, ties=tuple(_ties_by_key(model, made))))


def _layer(name: str, entry: Any, specified: bool) -> Layer:
    if isinstance(entry, Layer):
        return entry
    if isinstance(entry, nn.Module):
        return Layer(name, lambda: entry)
    if _is_specification(entry):
        return Layer(name, _Specified(entry))
    if specified and callable(entry) and not isinstance(entry, type):
        return Layer(name, lambda: _Function(entry))
    return Layer(name, entry)


def _is_specification(entry: object) -> bool:
    # Without importing DeepSpeed, which takes seconds, for a list that has none.
    return any(
        kind.__name__ == "LayerSpec" and kind.__module__.startswith("deepspeed.")
        for kind in type(entry).__mro__
    )


def _ties_by_key(model: LayeredModel, made: Sequence[Any]) -> list[Tie]:
    """Return the ties of the parameters that specifications with the same key have in common."""
    owners: dict[str, int] = {}
    ties: list[Tie] = []
    for number, entry in enumerate(made):
        if not _is_specification(entry) or not hasattr(entry, "key"):
            continue
        owner = owners.setdefault(entry.key, number)
        if owner < number:
            ties += _ties_between(model, owner, number, entry.key)
    return ties


def _ties_between(model: LayeredModel, owner: int, copy: int, key: str) -> list[Tie]:
    """Return the ties of the parameters that two layers have under the same name.

    As in DeepSpeed, each layer has the others for itself, such as the bias of a last projection
    whose weight is that of the embedding.

    Raises:
        InputError: if there are none, or they differ in shape.
    """
    known, own = (
        {
            name.removeprefix("module."): (name, tuple(parameter.shape))
            for name, parameter in model.build_layer(index, 0).named_parameters()
        }
        for index in (owner, copy)
    )
    ties = []
    for plain, (name, shape) in own.items():
        if plain not in known:
            continue
        first, expected = known[plain]
        if shape != expected:
            raise InputError(
                f"layers {owner} and {copy} have the key {key!r}, but {plain} of the shapes "
                f"{list(expected)} and {list(shape)}, accepted is one shape: make them equal or "
                "give the layers keys of their own."
            )
        ties.append(Tie(owner, first, copy, name))
    if own and not ties:
        raise InputError(
            f"layers {owner} and {copy} have the key {key!r}, but no parameter under the same "
            f"name: {', '.join(known) or 'none'} and {', '.join(own)}: give them the same name, or "
            "the layers keys of their own."
        )
    return ties


class _Specified:
    """Builds the module of a specification, with its function of the module if it has one."""

    def __init__(self, specification: Any) -> None:
        self._specification = specification

    def __call__(self) -> nn.Module:
        module: nn.Module = self._specification.build()
        function = getattr(self._specification, "forward_fn", None)
        return module if function is None else _Applied(module, function)


class _Applied(nn.Module):
    def __init__(self, module: nn.Module, function: Callable[[nn.Module, Activation], Any]) -> None:
        super().__init__()
        self.module = module
        self._function = function

    def forward(self, activation: Activation) -> Activation:
        return self._function(self.module, activation)


class _Function(nn.Module):
    def __init__(self, function: Callable[[Activation], Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, activation: Activation) -> Activation:
        return self._function(activation)
