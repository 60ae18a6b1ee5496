"""A list of layers that a user's function returns: modules, builders, or DeepSpeed's LayerSpecs."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from hpc_lpm.activation import Activation
from hpc_lpm.models.layered import Layer, LayeredModel, Tie
from hpc_lpm.models.sharing import with_shared_parts_known


def listed_model(name: str, made: Sequence[Any]) -> LayeredModel:
    """Return the model whose layers are the entries of a list, named `layer0`, `layer1`, ...

    An entry is a builder, a `Layer`, a module or a `deepspeed.pipe.LayerSpec`. Modules may share
    parameters and be one another; specifications with one key share their parameters. Beside
    specifications, other callables are functions of the activation, as DeepSpeed takes them.

    Raises:
        InputError: if an entry is none of these.
    """
    specified = any(_is_specification(entry) for entry in made)
    layers = [_layer(f"layer{number}", entry, specified) for number, entry in enumerate(made)]
    ties = tuple(_ties_by_key(made))
    return with_shared_parts_known(LayeredModel(name, tuple(layers), ties=ties))


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


def _ties_by_key(made: Sequence[Any]) -> list[Tie]:
    """Return the ties of all parameters of specifications with the same key."""
    owners: dict[str, int] = {}
    ties = []
    for number, entry in enumerate(made):
        if not _is_specification(entry) or not hasattr(entry, "key"):
            continue
        owner = owners.setdefault(entry.key, number)
        if owner < number:
            known = dict(_Specified(made[owner])().named_parameters())
            for name, _ in _Specified(entry)().named_parameters():
                plain = name.removeprefix("module.")
                found = next(n for n in known if n.removeprefix("module.") == plain)
                ties.append(Tie(owner, found, number, name))
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
