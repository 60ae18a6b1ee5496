"""Compares a captured network, cut into stages, with the uncut original, bit for bit."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from hpc_lpm.errors import InputError
from hpc_lpm.models.capture import capture_model
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.state_names import original_state
from tests.models.zoo.specimen import SAMPLES, Specimen

STAGES = 4
SEED = 5
EQUAL = "equal"


@dataclass(frozen=True)
class Outcome:
    """What came of one architecture; `result` is `equal`, a refusal or what differs first."""

    name: str
    family: str
    parameters: int
    layers: int
    crossing: int
    result: str

    @property
    def equal(self) -> bool:
        return self.result == EQUAL

    @property
    def refused(self) -> bool:
        return self.result.startswith("refused: ")


def examine(specimen: Specimen) -> Outcome:
    """Capture an architecture, cut it into stages and compare it in training and evaluation."""
    torch.manual_seed(SEED)
    original = specimen.build()
    parameters = sum(parameter.numel() for parameter in original.parameters())
    try:
        model = capture_model(copy.deepcopy(original), specimen.inputs(2), loss=specimen.loss)
    except InputError as error:
        return Outcome(specimen.name, specimen.family, parameters, 0, 0, f"refused: {error}")
    chain = Chain(model)
    result = first_difference(chain, original, specimen) or EQUAL
    layers = len(model.layers)
    return Outcome(specimen.name, specimen.family, parameters, layers, chain.crossing, result)


def first_difference(chain: "Chain", original: nn.Module, specimen: Specimen) -> str | None:
    """Return what differs first between a chain and its original, None if nothing does."""
    return (
        _state_differs(chain, original)
        or _training_differs(chain, original, specimen, SAMPLES)
        or _training_differs(chain, original, specimen, SAMPLES - 1)
        or _evaluation_differs(chain, original, specimen)
    )


class Chain:
    """The layers of a captured network in stages that hand their activations on without history."""

    def __init__(self, model: LayeredModel) -> None:
        self.model = model
        self.layers = {index: model.build_layer(index, SEED) for index in range(len(model.layers))}
        self.cuts = balanced_cuts(list(self.layers.values()), STAGES)
        self.crossing = 0
        self._arrived: dict[int, Tensor] = {}

    def forward(self, inputs: Any) -> list[tuple[Any, Any]]:
        """Return what went into each stage, as leaves, and what came out of it."""
        stages = []
        self._arrived.clear()
        for start, stop in pairwise(self.cuts):
            entering = activation = _leaves(inputs)
            for leaf in _tensors(entering):
                if leaf.requires_grad:
                    # Unlike leaf.grad it keeps the memory layout, which later sums depend on.
                    leaf.register_hook(partial(self._arrived.__setitem__, id(leaf)))
            for index in range(start, stop):
                activation = self.layers[index](activation)
            stages.append((entering, activation))
            inputs = activation
            if stop < self.cuts[-1]:
                self.crossing = max(self.crossing, len(_tensors(activation)))
        return stages

    def backward(self, loss: Tensor, stages: Sequence[tuple[Any, Any]]) -> None:
        """Run the stages backward, last first, each from the gradients of the next one's inputs."""
        loss.backward()
        for (_, leaving), (entering, _) in reversed(list(pairwise(stages))):
            pairs = [
                (tensor, self._arrived[id(leaf)])
                for tensor, leaf in zip(_tensors(leaving), _tensors(entering), strict=True)
                if tensor.requires_grad and id(leaf) in self._arrived
            ]
            if pairs:
                torch.autograd.backward(*zip(*pairs, strict=True))

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients under the original's names; those of tied ends added up.

        The end that is computed last comes first in the sum, as autograd has it.
        """
        found: dict[str, Tensor] = {}
        names = self._names()
        for index in reversed(self.layers):
            for name, parameter in self.layers[index].named_parameters():
                if parameter.grad is not None:
                    full = names[index, name]
                    found[full] = found[full] + parameter.grad if full in found else parameter.grad
        return found

    def _names(self) -> dict[tuple[int, str], str]:
        names = {}
        for index, layer in enumerate(self.model.layers):
            names.update({(index, name): original for name, original in layer.original.items()})
        for tie in self.model.ties:
            owner = names[tie.owner_layer, tie.owner_parameter]
            names[tie.copy_layer, tie.copy_parameter] = owner
        return {key: self.model.aliases.get(name, name) for key, name in names.items()}

    def set_mode(self, training: bool) -> None:
        for layer in self.layers.values():
            layer.train(training)
            layer.zero_grad()


def balanced_cuts(layers: Sequence[nn.Module], stages: int) -> list[int]:
    """Cut where parameters and layers, each counted half, are divided most evenly."""
    sizes = [sum(parameter.numel() for parameter in layer.parameters()) for layer in layers]
    total = max(1, sum(sizes))
    cuts, done = [0], 0.0
    for index, size in enumerate(sizes):
        done += size / total / 2 + 1 / len(layers) / 2
        left, wanted = len(layers) - index - 1, stages - len(cuts)
        if wanted and left >= wanted and (done >= len(cuts) / stages or left == wanted):
            cuts.append(index + 1)
    return [*cuts, len(layers)]


def _state_differs(chain: Chain, original: nn.Module) -> str | None:
    state = original_state(chain.model, chain.layers)
    expected = original.state_dict()
    if len(chain.cuts) != STAGES + 1:
        return f"has {len(chain.layers)} layers, {STAGES} stages were wanted"
    if odd := state.keys() ^ expected.keys():
        return f"state_dict: {min(odd)} is only in one of the two"
    wrong = [name for name in state if not _same(state[name], expected[name])]
    return f"state_dict: {wrong[0]} differs" if wrong else None


def _training_differs(
    chain: Chain, original: nn.Module, specimen: Specimen, samples: int
) -> str | None:
    inputs, targets = specimen.inputs(samples), specimen.targets(samples)
    torch.manual_seed(SEED + samples)
    original.train().zero_grad()
    loss = specimen.loss(outputs := original(inputs), targets)
    loss.backward()

    chain.set_mode(training=True)
    torch.manual_seed(SEED + samples)
    stages = chain.forward(inputs)
    own_outputs = stages[-1][1]
    own_loss = chain.model.loss(own_outputs, targets)
    chain.backward(own_loss, stages)
    return (
        _tensors_differ("outputs in training", _tensors(own_outputs), _tensors(outputs))
        or _tensors_differ("loss", [own_loss], [loss])
        or _gradients_differ(chain.gradients(), original)
        or _state_differs(chain, original)
    )


def _gradients_differ(found: dict[str, Tensor], original: nn.Module) -> str | None:
    for name, parameter in original.named_parameters():
        own = found.get(name)
        if (own is None) != (parameter.grad is None):
            return f"only one of the two has a gradient for {name}"
        if own is not None and not _same(own, parameter.grad):
            largest = (own - parameter.grad).abs().max() / parameter.grad.abs().max()
            return f"gradient of {name} differs by {largest:.1e} of its largest element"
    return None


def _evaluation_differs(chain: Chain, original: nn.Module, specimen: Specimen) -> str | None:
    chain.set_mode(training=False)
    inputs = specimen.inputs(SAMPLES)
    with torch.no_grad(), _without_fast_path():
        expected = original.eval()(inputs)
        found = chain.forward(inputs)[-1][1]
    return _tensors_differ("outputs in evaluation", _tensors(found), _tensors(expected))


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Keep nn.TransformerEncoder from its fused kernels, which have other last bits than its parts.

    It takes them in evaluation without gradients alone, and torch.export never sees them.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _tensors_differ(what: str, found: list[Tensor], expected: list[Tensor]) -> str | None:
    if len(found) != len(expected) or not all(map(_same, found, expected)):
        return f"{what} differ"
    return None


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _tensors(activation: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(activation) if isinstance(leaf, Tensor)]


def _leaves(activation: Any) -> Any:
    return pytree.tree_map_only(
        Tensor, lambda tensor: tensor.detach().requires_grad_(tensor.requires_grad), activation
    )
