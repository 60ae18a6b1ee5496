"""The FBP recurrence for layers of any kind, played in one process.

Every stage executes its fixed order of docs/explanation/schedules-and-weights.md, as soon as the
messages that it waits for are there. Weights and state are kept by copying whole layers, so that
this holds for layers that remember anything, draw at random and return anything. A layer has a
graph of its own; between layers, and between stages, gradients are handed on one by one, None where
there is none.

The engine's ways to do the same (one graph a stage, hooks, messages) are not used here.
"""

import copy
import dataclasses
import hashlib
import random
from collections.abc import Callable, Collection
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpc_lpm.models.layered import LayeredModel
from tests.mpi.recurrence import ReadingLater

Gradients = list[Tensor | None]
Chooses = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def play(
    model: LayeredModel,
    cuts: list[int],
    inputs: list[Tensor],
    targets: list[Tensor],
    *,
    per_step: int,
    lead: int,
    seed: int,
    weights: str,
    optimizer: Chooses,
    deriving: Collection[type] = (),
) -> list[nn.Module]:
    """Train on all micro-batches and return all layers.

    `deriving` are the classes of layers whose graph keeps what they compute from their weights.
    """
    steps = [inputs[first : first + per_step] for first in range(0, len(inputs), per_step)]
    divisors = [sum(map(len, step)) / len(x) for step in steps for x in step]
    last = len(cuts) - 1
    stages = []
    for k in range(1, last + 1):
        layers = {i: model.build_layer(i, seed).train() for i in range(cuts[k - 1], cuts[k])}
        order = order_of(lead * (last - k), per_step, len(inputs))
        stages.append(Stage(layers, order, seed, weights, optimizer, deriving))
    stages[-1].loss = lambda made, n: model.loss(made, targets[n]) / divisors[n]
    activations: dict[tuple[int, int], Any] = {(0, n): x for n, x in enumerate(inputs)}
    gradients: dict[tuple[int, int], Gradients] = {(last, n): [] for n in range(len(inputs))}
    while any(stage.order for stage in stages):
        for k, stage in enumerate(stages):
            while stage.order:
                kind, n = stage.order[0]
                if kind == "F" and (k, n) in activations:
                    activations[k + 1, n] = stage.forward(n, activations[k, n])
                elif kind == "B" and (k + 1, n) in activations and (k + 1, n) in gradients:
                    gradients[k, n] = stage.backward(n, gradients[k + 1, n])
                elif kind == "U":
                    stage.update()
                else:
                    break
                stage.order.pop(0)
    return [layer for stage in stages for layer in stage.layers.values()]


def order_of(d: int, per_step: int, count: int) -> list[tuple[str, int]]:
    """F_0 ... F_{d-1}; then F_{n+d}, B_n and after every M-th, or the last one, U."""
    order = [("F", n) for n in range(min(d, count))]
    for n in range(count):
        if n + d < count:
            order.append(("F", n + d))
        order.append(("B", n))
        if (n + 1) % per_step == 0 or n + 1 == count:
            order.append(("U", n // per_step))
    return order


class Stage:
    def __init__(
        self,
        layers: dict[int, nn.Module],
        order: list[tuple[str, int]],
        seed: int,
        policy: str,
        optimizer: Chooses,
        deriving: Collection[type],
    ) -> None:
        self.layers, self.order, self.seed, self.policy = layers, list(order), seed, policy
        self.deriving = tuple(deriving)
        self.loss: Callable[[Any, int], Tensor] | None = None
        self.optimizer = optimizer(self.parameters(layers) or [nn.Parameter(torch.zeros(0))])
        self.given: dict[int, Any] = {}
        self.before: dict[int, dict[int, nn.Module]] = {}
        version: dict[str, list[int]] = {"F": [], "B": []}
        updates = 0
        for kind, _ in order:
            if kind == "U":
                updates += 1
            else:
                version[kind].append(updates)
        self.lagged = [f != b for f, b in zip(version["F"], version["B"], strict=True)]

    @staticmethod
    def parameters(layers: dict[int, nn.Module]) -> list[nn.Parameter]:
        return [p for layer in layers.values() for p in layer.parameters()]

    def forward(self, n: int, arrived: Any) -> Any:
        """Output of the stage; its layers have moved on unless they run again later."""
        self.given[n] = arrived
        if self.policy == "replay" and self.lagged[n]:
            with torch.no_grad():
                value = apart(arrived)
                for i, layer in copy.deepcopy(self.layers).items():
                    draw_all_from(layer, self.seed, i, n)
                    value = layer(value)
            return apart(value)
        self.before[n] = copy.deepcopy(self.layers)
        calls = self.calls(self.layers, n, arrived)
        return apart(calls[-1].made)

    def backward(self, n: int, above: Gradients) -> Gradients:
        """Gradients of what has arrived; those of the weights are accumulated."""
        arrived, again = self.given.pop(n), self.policy == "replay" and self.lagged[n]
        layers = self.layers if again else self.before.pop(n)
        live = self.policy == "live" and self.lagged[n]
        calls = self.calls(layers, n, arrived, now=self.layers if live else None)
        if self.loss is not None:
            above = self.backward_of_loss(calls[-1].made, n)
        for call in reversed(calls):
            own = self.layers[call.index]
            for p, accumulated in zip(call.layer.parameters(), own.parameters(), strict=True):
                p.grad = accumulated.grad
            above = call.backward(above)
            for p, accumulated in zip(call.layer.parameters(), own.parameters(), strict=True):
                sparse = p.grad is not None and p.grad.is_sparse
                accumulated.grad = p.grad.to_dense() if sparse else p.grad
        return above

    def backward_of_loss(self, made: Any, n: int) -> Gradients:
        leaves = apart(made, floats=True)
        draw_all_from(nn.Module(), self.seed, max(self.layers) + 1, n)
        assert self.loss is not None
        loss = self.loss(leaves, n)
        if loss.requires_grad:
            loss.backward()
        return [t.grad for t in tensors(leaves)]

    def calls(
        self,
        layers: dict[int, nn.Module],
        n: int,
        arrived: Any,
        now: dict[int, nn.Module] | None = None,
    ) -> "list[Call]":
        """The layers' calls in turn; given `now`, their backwards read these weights."""
        calls: list[Call] = []
        value = apart(arrived, floats=min(layers) > 0)
        for i, layer in layers.items():
            with reading(layer, None if now is None else now[i]):
                calls.append(Call(i, layer, value, self.seed, n))
            if now is not None and isinstance(layer, self.deriving):
                outputs = calls.pop().made
                calls.append(Call(i, copy.deepcopy(now[i]), value, self.seed, n))
            else:
                outputs = calls[-1].made
            value = apart(outputs, like=calls[-1].made)
        return calls

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


class Call:
    """A layer's run on leaves of its own, with a graph of its own."""

    def __init__(self, index: int, layer: nn.Module, given: Any, seed: int, n: int) -> None:
        self.index, self.layer = index, layer
        self.gradients: dict[int, Tensor] = {}
        self.given = apart(given, like=given)
        copies = {id(t): self.changeable(place, t) for place, t in enumerate(tensors(self.given))}
        draw_all_from(layer, seed, index, n)
        self.made = layer(rebuilt(self.given, lambda t: copies[id(t)]))

    def changeable(self, place: int, leaf: Tensor) -> Tensor:
        """A copy that the layer may change in place; its gradient is noted as it comes."""
        copied = leaf.clone()
        if copied.requires_grad:
            copied.register_hook(lambda gradient: self.gradients.update({place: gradient}))
        return copied

    def backward(self, above: Gradients) -> Gradients:
        pairs = [
            (t, g)
            for t, g in zip(tensors(self.made), above, strict=True)
            if g is not None and t.requires_grad
        ]
        if pairs:
            torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])
        return [self.gradients.get(place) for place in range(len(tensors(self.given)))]


def reading(layer: nn.Module, now: nn.Module | None) -> Any:
    if now is None:
        return nullcontext()
    return ReadingLater(list(layer.parameters()), list(now.parameters()))


def draw_all_from(layer: nn.Module, seed: int, index: int, n: int) -> None:
    """Set the generators of torch, Python and NumPy, and those that the layer has, for one call."""

    def number(*key: int) -> int:
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1

    torch.manual_seed(number(seed, index, n, 0))
    random.seed(number(seed, index, n, 0))
    np.random.seed(number(seed, index, n, 0) % 2**32)
    own = [
        value
        for part in layer.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Generator)
    ]
    for place, generator in enumerate(own):
        generator.manual_seed(number(seed, index, n, 0, place))


def tensors(value: Any) -> list[Tensor]:
    """The tensors of an activation, each once, however often it is in there."""
    found: dict[int, Tensor] = {}

    def note(t: Tensor) -> Tensor:
        found.setdefault(id(t), t)
        return t

    rebuilt(value, note)
    return list(found.values())


def apart(value: Any, *, floats: bool = False, like: Any = None) -> Any:
    """A copy without history; what was one tensor in two places still is.

    Those that require a gradient: all floating-point ones, or the same ones as in `like`.
    """
    needed = iter([t.requires_grad for t in tensors(like)] if like is not None else [])
    copies: dict[int, Tensor] = {}

    def copied(t: Tensor) -> Tensor:
        if id(t) not in copies:
            copies[id(t)] = t.detach().clone()
            required = next(needed) if like is not None else floats and t.is_floating_point()
            copies[id(t)].requires_grad_(required)
        return copies[id(t)]

    return rebuilt(value, copied)


def rebuilt(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same lists, tuples, dictionaries and dataclasses around other tensors."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: rebuilt(element, change) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(rebuilt(element, change) for element in value)
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return type(value)(**{name: rebuilt(getattr(value, name), change) for name in names})
    return value
