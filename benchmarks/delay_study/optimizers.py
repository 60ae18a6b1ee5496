"""The optimizers, each of which updates all stages at once, with a learning rate for each stage.

Matrices within blocks are those of two dimensions that are neither in the first nor in the last
layer. Those of equal shape are stacked, so that one product serves them all.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.delay_study.stages import Stages

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Optimizer(ABC):
    """Updates the weights of all stages in place."""

    @abstractmethod
    def step(self, rates: list[float]) -> None:
        """Update from the gradients, with a learning rate for each stage."""


class OfTorch(Optimizer):
    """An optimizer of torch that treats every number on its own."""

    def __init__(
        self,
        parts: list[list[tuple[Tensor, Tensor]]],
        make: Callable[[list[dict[str, list[Tensor]]]], torch.optim.Optimizer],
    ) -> None:
        groups = []
        for part in parts:
            parameters = []
            for weights, gradients in part:
                parameter = weights.data
                parameter.grad = gradients.data
                parameters.append(parameter)
            groups.append({"params": parameters})
        self._stages = [index for index, part in enumerate(parts) if part]
        self._torch = make([group for group in groups if group["params"]])

    def step(self, rates: list[float]) -> None:
        """Update every stage's group at its rate."""
        for group, stage in zip(self._torch.param_groups, self._stages, strict=True):
            group["lr"] = rates[stage]
        self._torch.step()


@dataclass
class _Stack:
    """Matrices of one shape: views of weights and gradients, and the stages that they are in."""

    weights: list[Tensor]
    gradients: list[Tensor]
    stages: list[int]

    def gradient(self) -> Tensor:
        """Return the gradients as one tensor."""
        return torch.stack(self.gradients)

    def subtract(self, updates: Tensor, rates: list[float]) -> None:
        """Subtract the updates at the stages' rates."""
        for weights, update, stage in zip(self.weights, updates, self.stages, strict=True):
            weights.sub_(update, alpha=rates[stage])


class _OfMatrices(Optimizer):
    """A rule for the matrices within blocks, and AdamW for the rest."""

    def __init__(self, stages: Stages, beta1: float, beta2: float) -> None:
        matrices, rest = _divided(stages)
        self._rest = OfTorch(rest, lambda groups: _adamw(groups, beta1, beta2))
        self._stacks = matrices
        self._beta1, self._beta2 = beta1, beta2

    def step(self, rates: list[float]) -> None:
        """Update matrices and the rest."""
        self._rest.step(rates)
        for index, stack in enumerate(self._stacks):
            stack.subtract(self._update(index, stack.gradient()), rates)

    @abstractmethod
    def _update(self, index: int, gradient: Tensor) -> Tensor:
        """Return the update of a stack at a rate of 1."""


class Muon(_OfMatrices):
    """Muon with Nesterov's momentum as in torch.optim.Muon (match_rms_adamw), in full precision."""

    def __init__(self, stages: Stages, beta1: float, beta2: float, *, nesterov: bool) -> None:
        super().__init__(stages, beta1, beta2)
        self._momenta = [torch.zeros_like(stack.gradient()) for stack in self._stacks]
        self._nesterov = nesterov

    def _update(self, index: int, gradient: Tensor) -> Tensor:
        momentum = self._momenta[index].lerp_(gradient, 1 - self._beta1)
        smooth = gradient.lerp(momentum, self._beta1) if self._nesterov else momentum
        return orthogonal(smooth).mul_(0.2 * max(gradient.shape[1:]) ** 0.5)


class RotatedAdam(_OfMatrices):
    """Adam in a basis that follows the gradient's second moments ("basis rotation")."""

    EVERY = 10

    def __init__(self, stages: Stages, beta1: float, beta2: float) -> None:
        super().__init__(stages, beta1, beta2)
        self._updates = [0] * len(self._stacks)
        self._states = []
        for stack in self._stacks:
            like = stack.gradient()
            count, rows, columns = like.shape
            left = torch.eye(rows).repeat(count, 1, 1)
            right = torch.eye(columns).repeat(count, 1, 1)
            self._states.append(
                [torch.zeros_like(like), torch.zeros_like(like), 0 * left, 0 * right, left, right]
            )

    def _update(self, index: int, gradient: Tensor) -> Tensor:
        mean, square, left, right, u, v = self._states[index]
        left.lerp_(gradient @ gradient.mT, 1 - self._beta2)
        right.lerp_(gradient.mT @ gradient, 1 - self._beta2)
        if self._updates[index] % self.EVERY == 0:
            u.copy_(torch.linalg.qr(left @ u).Q)
            v.copy_(torch.linalg.qr(right @ v).Q)
        self._updates[index] += 1
        mean.lerp_(gradient, 1 - self._beta1)
        square.lerp_((u.mT @ gradient @ v).square_(), 1 - self._beta2)
        count = self._updates[index]
        scale = (square / (1 - self._beta2**count)).sqrt_().add_(1e-8)
        step = (u.mT @ mean @ v).div_(scale).div_(1 - self._beta1**count)
        return u @ step @ v.mT


def orthogonal(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Return the nearest orthogonal matrices as Muon approximates them (Newton-Schulz)."""
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT.contiguous() if tall else x


def make_optimizer(name: str, stages: Stages, beta1: float, beta2: float) -> Optimizer:
    """Return an optimizer by its name: adamw, muon, muon-plain, rotated, nadam or momentum."""
    if name.startswith("muon"):
        return Muon(stages, beta1, beta2, nesterov=name == "muon")
    if name == "rotated":
        return RotatedAdam(stages, beta1, beta2)
    whole = [[(stage.weights, stage.gradients)] for stage in stages.all]
    makers: dict[str, Callable[[list[dict[str, list[Tensor]]]], torch.optim.Optimizer]] = {
        "adamw": lambda groups: _adamw(groups, beta1, beta2),
        "nadam": lambda groups: torch.optim.NAdam(groups, betas=(beta1, beta2)),
        "momentum": lambda groups: torch.optim.SGD(groups, momentum=beta1),
    }
    return OfTorch(whole, makers[name])


def _adamw(
    groups: list[dict[str, list[Tensor]]], beta1: float, beta2: float
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, betas=(beta1, beta2), weight_decay=0.0, fused=True)


def _divided(stages: Stages) -> tuple[list[_Stack], list[list[tuple[Tensor, Tensor]]]]:
    """Return the matrices within blocks by shape, and the other weights of each stage."""
    stacks: dict[torch.Size, _Stack] = {}
    rest: list[list[tuple[Tensor, Tensor]]] = []
    last = len(stages.all) - 1
    for index, stage in enumerate(stages.all):
        rest.append([])
        weights, gradients = stage.views(stage.weights), stage.views(stage.gradients)
        final = f"{len(list(stage.module.children())) - 1}."
        for name, shape in stage.shapes.items():
            outer = (index == 0 and name.startswith("0.")) or (
                index == last and name.startswith(final)
            )
            if len(shape) != 2 or outer:
                rest[-1].append((weights[name], gradients[name]))
                continue
            stack = stacks.setdefault(shape, _Stack([], [], []))
            stack.weights.append(weights[name])
            stack.gradients.append(gradients[name])
            stack.stages.append(index)
    return list(stacks.values()), rest
