"""Finds what the layers of a user's model have in common, and makes it known to the engine.

Layers that are given as builders may hand out one module, or modules with one parameter, several
times. Such parameters become ties. A buffer that two layers share, such as the running statistics
of a normalisation, cannot be kept equal between two stages, so these layers become one, with all
that lie between them.
"""

import copy
import gc
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import Layer, LayeredModel, Tie
from hpc_lpm.user_functions import describe_raised


def with_shared_parts_known(model: LayeredModel) -> LayeredModel:
    """Return the model with ties for shared parameters, and layers that share buffers joined.

    Every layer is built once, one after the other, and only what outlives its layer is kept: that
    is what somebody else holds. A builder whose module outlives it hands out copies from then on,
    so that every call returns the module as it was at first.

    Raises:
        InputError: if a layer cannot be built, or is to be copied and cannot be.
    """
    built = _Built(model)
    if ranges := built.sharing_buffers():
        model = _joined(model, ranges)
        built = _Built(model)
    layers = tuple(
        replace(layer, build=_Copying(layer)) if index in built.outliving else layer
        for index, layer in enumerate(model.layers)
    )
    return replace(model, layers=layers, ties=(*model.ties, *built.ties()))


class _Built:
    """What building all layers of a model once has shown: uses of the same tensors by layers."""

    def __init__(self, model: LayeredModel) -> None:
        alive: dict[int, list[weakref.ref[Any]]] = {}
        self._owners = {
            (tie.copy_layer, tie.copy_parameter): (tie.owner_layer, tie.owner_parameter)
            for tie in model.ties
        }
        self._parameters: dict[int, _Uses] = {}
        self._buffers: dict[int, _Uses] = {}
        for index in range(len(model.layers)):
            layer = model.build_layer(index, seed=0)
            self._note(self._parameters, index, layer.named_parameters())
            self._note(self._buffers, index, layer.named_buffers())
            tensors = (*layer.parameters(), *layer.buffers())
            alive[index] = [weakref.ref(layer), *(weakref.ref(tensor) for tensor in tensors)]
            del layer, tensors
            if _any_alive(alive[index]):
                gc.collect(1)  # a module that refers to itself; the young alone, which is quick
        if any(map(_any_alive, alive.values())):
            gc.collect()
        self.outliving = {index for index, parts in alive.items() if _any_alive(parts)}

    @staticmethod
    def _note(uses: "dict[int, _Uses]", index: int, named: Iterable[tuple[str, Tensor]]) -> None:
        for name, tensor in named:
            known = uses.get(id(tensor))
            if known is None or known.tensor() is not tensor:
                known = uses[id(tensor)] = _Uses(tensor)
            known.places.append((index, name))

    def ties(self) -> list[Tie]:
        """Return the ties of the parameters that several layers use, in the order of layers.

        What the model ties one of them to is tied to all of them.
        """
        found: list[Tie] = []
        for uses in self._parameters.values():
            if len(uses.places) > 1:
                owners = (self._owners[place] for place in uses.places if place in self._owners)
                first, *others = sorted({*uses.places, *owners})
                found += [Tie(*first, *other) for other in others]
        return sorted(found, key=lambda tie: (tie.copy_layer, tie.owner_layer))

    def sharing_buffers(self) -> list[tuple[int, int]]:
        """Return first and last layer of all that share a buffer, without overlaps, in order."""
        ranges = sorted(
            (uses.places[0][0], uses.places[-1][0])
            for uses in self._buffers.values()
            if len(uses.places) > 1
        )
        merged: list[tuple[int, int]] = []
        for first, last in ranges:
            if merged and first <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(last, merged[-1][1])
            else:
                merged.append((first, last))
        return merged


def _any_alive(parts: list[weakref.ref[Any]]) -> bool:
    return any(part() is not None for part in parts)


class _Uses:
    """One tensor, as long as it lives, and the layers that use it under which names."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = weakref.ref(tensor)
        self.places: list[tuple[int, str]] = []


class _Copying:
    """Builds a layer whose module somebody else holds: a copy of the module as it is now."""

    def __init__(self, layer: Layer) -> None:
        try:
            self._module = copy.deepcopy(layer.build())
        except Exception as error:
            raise InputError(
                f"layer {layer.name!r} is a module that was built beforehand and cannot be copied, "
                f"{describe_raised(error)}: build it inside its builder."
            ) from error

    def __call__(self) -> nn.Module:
        return copy.deepcopy(self._module)


def _joined(model: LayeredModel, ranges: list[tuple[int, int]]) -> LayeredModel:
    """Return the model with each of these ranges of layers as one layer."""
    layers: list[Layer] = []
    position = 0
    for first, last in [*ranges, (len(model.layers), len(model.layers))]:
        layers += model.layers[position:first]
        part = model.layers[first : last + 1]
        if part:
            name = f"{part[0].name} to {part[-1].name}"
            layers.append(Layer(name, _in_sequence([layer.build for layer in part])))
        position = last + 1
    if model.ties:
        raise InputError(
            f"model {model.name!r} has ties beside layers that share a buffer, accepted is one of "
            "the two: let the layers share the parameters too, and leave the ties out."
        )
    return replace(model, layers=tuple(layers))


def _in_sequence(builders: list[Callable[[], nn.Module]]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*(build() for build in builders))
