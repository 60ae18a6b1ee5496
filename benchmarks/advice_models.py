"""Emulated devices with weights of the profiled size, so that averages of gradients cost something.

`replay:PROFILE` has one weight a layer. Here each layer has as many as its profile says beside it;
their gradients are zeros, which are summed, sent and applied like any others. That takes the cores
of this machine, which emulated devices otherwise leave alone.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.replay import replay
from hpc_lpm.profile_formats.read import read_profile

_BYTES_PER_ELEMENT = 4


class Weighty(nn.Module):
    """An emulated layer with further weights, which change nothing: [n, ...] to [n, width]."""

    def __init__(self, build: Callable[[], nn.Module], weights: int) -> None:
        super().__init__()
        self.emulated = build()
        self.further = nn.Parameter(torch.zeros(weights))

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute as the emulated layer does."""
        outputs: Tensor = self.emulated(inputs)
        return outputs + 0.0 * self.further[0]


def weighty(shape: DataShape, profile: str = "profile.json") -> LayeredModel:
    """Emulate the devices of a profile, with weights of its size."""
    model, measured = replay(shape, Path(profile)), read_profile(Path(profile))
    layers = [
        replace(
            layer,
            build=partial(
                Weighty, layer.build, max(1, profiled.parameter_bytes // _BYTES_PER_ELEMENT - 1)
            ),
        )
        for layer, profiled in zip(model.layers, measured.layers, strict=True)
    ]
    return LayeredModel(model.name, tuple(layers))
