"""The stages: their layers, their slices of all weights, and their forwards."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from hpc_lpm.models.layered import LayeredModel


@dataclass
class Piece:
    """What a stage returned for the micro-batches from `start` up to `stop`."""

    start: int
    stop: int
    outputs: Any


@dataclass
class Stage:
    """One stage: `weights` and `gradients` are its slices of those of all stages."""

    module: nn.Module
    weights: Tensor
    gradients: Tensor
    shapes: dict[str, torch.Size]
    pieces: list[Piece] = field(default_factory=list)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the parts of a tensor like `weights` by the parameters' names."""
        parts = flat.split([shape.numel() for shape in self.shapes.values()])  # type: ignore[no-untyped-call]
        named = zip(self.shapes.items(), parts, strict=True)
        return {name: part.view(shape) for (name, shape), part in named}

    def forward_live(self, inputs: Any, point: Tensor | None) -> Any:
        """Run the layers at a point, with a graph whose backward reads the weights of its time."""
        if point is None:
            return self.module(inputs)
        kept = self.weights.clone()
        self.weights.copy_(point)
        outputs = self.module(inputs)
        self.weights.copy_(kept)
        return outputs

    def forward_stashed(self, inputs: Any, point: Tensor | None) -> tuple[Any, Tensor]:
        """Run the layers at a point, with a graph that keeps it; return the point too."""
        kept = (self.weights if point is None else point).clone().requires_grad_()
        return functional_call(self.module, self.views(kept), (inputs,)), kept


@dataclass
class Stages:
    """All stages; `slices` are theirs of all weights and gradients, in their order."""

    all: list[Stage]
    weights: Tensor
    gradients: Tensor
    slices: list[slice]


def cuts_of(layers: int, stages: int) -> list[int]:
    """Return the stages + 1 cuts that divide layers as evenly as can be."""
    return [(2 * stage * layers + stages) // (2 * stages) for stage in range(stages + 1)]


def build_stages(model: LayeredModel, count: int, seed: int) -> Stages:
    """Build the layers of a model in stages.

    The parameters share memory with the weights but not their version, as updates in place between
    a forward and its backward are what `live` means.
    """
    layers = [model.build_layer(index, seed) for index in range(len(model.layers))]
    cuts = cuts_of(len(layers), count)
    modules = [nn.Sequential(*layers[start:stop]) for start, stop in pairwise(cuts)]
    sizes = [sum(p.numel() for p in module.parameters()) for module in modules]
    weights, gradients = torch.empty(sum(sizes)), torch.zeros(sum(sizes))
    stages, slices, start = [], [], 0
    for module, size in zip(modules, sizes, strict=True):
        part = slice(start, start + size)
        shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        stage = Stage(module, weights[part], gradients[part], shapes)
        own, own_gradients = stage.views(stage.weights), stage.views(stage.gradients)
        for name, parameter in module.named_parameters():
            own[name].copy_(parameter.data)
            parameter.data = own[name].data
            parameter.grad = own_gradients[name].data
        stages.append(stage)
        slices.append(part)
        start += size
    return Stages(stages, weights, gradients, slices)


def take(pieces: list[Piece], start: int, stop: int, samples: int) -> Any:
    """Return the outputs for the micro-batches from `start` up to `stop`, `samples` in each.

    Pieces that are not needed again are forgotten.
    """
    parts = []
    for piece in [piece for piece in pieces if piece.start < stop and piece.stop > start]:
        low, high = max(start, piece.start) - piece.start, min(stop, piece.stop) - piece.start
        parts.append(_rows(piece.outputs, low * samples, high * samples))
    pieces[:] = [piece for piece in pieces if piece.stop > stop]
    if len(parts) == 1:
        return parts[0]
    return tree_map(lambda *tensors: torch.cat(tensors), *parts)


def _rows(outputs: Any, low: int, high: int) -> Any:
    def rows(tensor: Tensor) -> Tensor:
        return tensor if high - low == len(tensor) else tensor[low:high]

    return tree_map(rows, outputs)
