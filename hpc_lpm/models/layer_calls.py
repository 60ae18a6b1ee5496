"""Runs layers one after the other, each with random numbers of its own."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hpc_lpm.activation import Activation
from hpc_lpm.models.losses import Loss
from hpc_lpm.random_streams import (
    NUMPY_SEEDS,
    UntouchedGenerators,
    seed_of,
    set_generators,
    set_generators_of_torch,
    state_elsewhere,
    state_of_torch,
)

_TRAINING, _EVALUATION = 0, 1

CallLayer = Callable[[int, nn.Module, Activation], Activation]
"""Runs one layer, given its index and what the layer before it returned."""


class UnexpectedDrawError(Exception):
    """A layer draws from a generator in some of its passes only."""

    def __init__(self) -> None:
        super().__init__(
            "a layer draws random numbers from a generator from which none has drawn in the first "
            "pass: let it draw in every pass of training"
        )


@dataclass(frozen=True)
class _Draws:
    """From which generators layers draw in training."""

    from_torch: bool
    elsewhere: bool


class LayerCalls:
    """Runs the layers of a stage, or of a whole model.

    Every random number that a layer draws is a function of (seed, layer, n), n being the number of
    the micro-batch within the whole run, whichever rank runs the layer, how often, and after
    whatever. This covers the generators of torch, Python and NumPy, and those that a layer keeps as
    attributes. Setting them takes time; in training it is left out for those of Python and NumPy,
    and for torch's, once a first pass has shown that no layer draws from them, and each pass checks
    that none does.

    Args:
        layers: the layers by their index in the model, in order.
        seed: of the run.
        device: what the layers compute on.

    Attributes:
        layers: the layers.
        number: the micro-batch that runs.
        training: whether it runs in training or in evaluation.
        replaced_buffers: buffers (layer, path within it, name) that a graph keeps although the next
            pass changes them in place: after a pass with a graph copies take their places.
    """

    def __init__(self, layers: Mapping[int, nn.Module], seed: int, device: torch.device) -> None:
        self.layers = dict(layers)
        self._seed = seed
        self.device = device
        self._own_generators = {
            index: found for index, layer in layers.items() if (found := own_generators(layer))
        }
        self.number = 0
        self.training = True
        self.replaced_buffers: set[tuple[int, str, str]] = set()
        self._draws: _Draws | None = None

    def run(self, activation: Activation, call: CallLayer | None = None) -> Activation:
        """Run all layers for micro-batch `number`, in training or in evaluation.

        Args:
            activation: what the first layer takes.
            call: runs one layer; by default the layer is simply called.

        Raises:
            UnexpectedDrawError: if a layer draws from a generator from which none has drawn in the
                first pass.
        """
        if self.training and self._draws is None:
            activation = self._run_and_learn(activation, call)
        elif self.training and self._draws is not None and not self._draws.elsewhere:
            untouched = UntouchedGenerators(self.device, elsewhere_alone=self._draws.from_torch)
            activation = self._run(activation, call)
            if untouched.drawn_from():
                raise UnexpectedDrawError
        else:
            activation = self._run(activation, call)
        if self.replaced_buffers and torch.is_grad_enabled():
            self._replace_buffers()
        return activation

    def _run(self, activation: Activation, call: CallLayer | None) -> Activation:
        for index, layer in self.layers.items():
            self.set_generators(index)
            activation = layer(activation) if call is None else call(index, layer, activation)
        return activation

    def _run_and_learn(self, activation: Activation, call: CallLayer | None) -> Activation:
        """Run all layers, and find out from which generators any of them draws."""
        from_torch = elsewhere = False
        for index, layer in self.layers.items():
            self.set_generators(index)
            before = state_of_torch(self.device), state_elsewhere()
            activation = layer(activation) if call is None else call(index, layer, activation)
            from_torch = from_torch or state_of_torch(self.device) != before[0]
            elsewhere = elsewhere or state_elsewhere() != before[1]
        self._draws = _Draws(from_torch or bool(self._own_generators), elsewhere)
        return activation

    def _replace_buffers(self) -> None:
        copies: dict[Tensor, Tensor] = {}
        for index, path, name in self.replaced_buffers:
            buffers = self.layers[index].get_submodule(path)._buffers
            buffer = buffers[name]
            if buffer is not None:
                buffers[name] = copies.setdefault(buffer, buffer.detach().clone())

    def set_generators(self, index: int) -> None:
        """Set the generators to where they stand when layer `index` runs.

        The loss draws from the generators of the layer that would follow the last one.
        """
        mode = _TRAINING if self.training else _EVALUATION
        key = (self._seed, index, self.number, mode)
        draws = self._draws if self.training else None
        if draws is None or draws.elsewhere:
            set_generators(key, self.device)
        elif draws.from_torch:
            set_generators_of_torch(key, self.device)
        for place, generator in enumerate(self._own_generators.get(index, ())):
            _seed_generator(generator, seed_of((*key, place)))

    def loss(self, loss: Loss, outputs: Activation, targets: Activation) -> Tensor:
        """Compute the loss of what the last layer returned."""
        mode = _TRAINING if self.training else _EVALUATION
        set_generators((self._seed, max(self.layers) + 1, self.number, mode), self.device)
        return loss(outputs, targets)


def own_generators(layer: nn.Module) -> list[object]:
    """Return the random generators that are attributes of a layer or of its parts."""
    kinds = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
    return [
        value
        for part in layer.modules()
        for value in vars(part).values()
        if isinstance(value, kinds)
    ]


def _seed_generator(generator: object, seed: int) -> None:
    match generator:
        case torch.Generator():
            generator.manual_seed(seed)
        case random.Random():
            generator.seed(seed)
        case np.random.RandomState():
            generator.seed(seed % NUMPY_SEEDS)
        case np.random.Generator():
            fresh = type(generator.bit_generator)(seed)
            generator.bit_generator.state = fresh.state
