"""Optimizers and schedules as users write them, good ones and some that cannot work here."""

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from hpc_lpm.data.dataset import DataShape


class Lion(Optimizer):
    """Sign of an interpolated momentum, Chen et al. 2023, as it goes from project to project."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.mul_(1 - group["lr"] * group["weight_decay"])
                state = self.state[p]
                if not state:
                    state["average"], state["updates"] = torch.zeros_like(p), 0
                first, second = group["betas"]
                update = state["average"] * first + p.grad * (1 - first)
                p.add_(update.sign(), alpha=-group["lr"])
                state["average"].mul_(second).add_(p.grad, alpha=1 - second)
                state["updates"] += 1


def heavy_ball(params: Any, lr: float, **options: Any) -> Optimizer:
    return torch.optim.SGD(params, lr=lr, **options)


class OneNorm(torch.optim.SGD):
    """Divides by the norm of all gradients, as LAMB and others do."""

    def step(self, closure: Callable | None = None) -> None:  # type: ignore[override]
        given = [
            p.grad for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        norm = torch.nn.utils.get_total_norm(given)
        for gradient in given:
            gradient.div_(norm + 1e-6)
        super().step()


class Noisy(Lion):
    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(torch.randn_like(p), alpha=group["lr"])


class Forgetful(torch.optim.SGD):
    """Counts its updates where a checkpoint does not look."""

    def step(self, closure: Callable | None = None) -> None:  # type: ignore[override]
        self.count = getattr(self, "count", 0) + 1
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.div_(self.count)
        super().step()


class Remembering(Lion):
    def step(self, closure: Callable | None = None) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["notes"] = "a text"


class NeedsGradients(Lion):
    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad)


class NeedsClosure(Lion):
    def step(self, closure: Callable) -> None:  # type: ignore[override]
        closure()


class Switching(Lion):
    def eval(self) -> None:
        """Change to the averaged weights."""


class OwnAttribute(Lion):
    """Reads an argument from itself, which one that is made from its groups does not have."""

    def __init__(self, params: Any, lr: float = 1e-4, factor: float = 1.0) -> None:
        super().__init__(params, lr)
        self.factor = factor

    def step(self, closure: Callable | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad[p.grad.abs() > self.factor] = 0
        super().step()


class NoRate(Optimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {})


def not_an_optimizer(params: Any, lr: float) -> Tensor:
    return torch.zeros(1)


def triangle(update: int, updates: int, peak: float = 0.5) -> float:
    done = (update + 1) / updates
    return done / peak if done <= peak else (1 - done) / (1 - peak) + 0.1


class Slower(LRScheduler):
    """A recurrence, whose rate is known only once all before are."""

    def __init__(self, optimizer: Optimizer, by: float = 0.1) -> None:
        self.by = by
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return [group["lr"] for group in self.optimizer.param_groups]
        return [
            group["lr"] / (1 + self.by * math.sqrt(self.last_epoch))
            for group in self.optimizer.param_groups
        ]


def with_warmup(optimizer: Optimizer, warmup: int, updates: int) -> LRScheduler:
    return LambdaLR(optimizer, lambda u: min((u + 1) / warmup, (updates - u) / updates))


_asked: list[int] = []


def counting(update: int, updates: int) -> float:
    _asked.append(update)
    return 1 / len(_asked)


def drawn(update: int, updates: int) -> float:
    return random.random()


def negative(update: int, updates: int) -> float:
    return 1.0 - update


def text(update: int, updates: int) -> str:
    return "0.1x"


def failing(update: int, updates: int) -> float:
    return [1.0, 0.5][update]


def nothing(optimizer: Optimizer) -> None:
    return None


A_NUMBER = 3


class Entry(nn.Module):
    """A layer that also tells by the samples whether something is to go wrong behind it."""

    def __init__(self, pixels: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(pixels, width)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        flat = images.flatten(1)
        return torch.relu(self.linear(flat)), (flat.mean(1) > LARGEST_MEAN).any()


class Spoiling(nn.Module):
    """Makes gradients infinite, or the outputs, where the layer before it said so."""

    def __init__(self, width: int, where: str) -> None:
        super().__init__()
        self.linear, self.where = nn.Linear(width, width), where

    def forward(self, activation: tuple[Tensor, Tensor]) -> Tensor:
        found, spoils = activation
        if self.where == "loss":
            found = found * torch.where(spoils, math.inf, 1.0)
        else:
            found = SpoilGradient.apply(found, spoils)
        return torch.relu(self.linear(found))


class SpoilGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, found: Tensor, spoils: Tensor) -> Tensor:
        ctx.save_for_backward(spoils)
        return found.view_as(found)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (spoils,) = ctx.saved_tensors
        return torch.where(spoils, torch.full_like(gradient, math.inf), gradient), None


LARGEST_MEAN = 0.24


def spoiled(shape: DataShape, where: str = "gradient") -> list[Callable[[], nn.Module]]:
    """Four layers; the first alone, or all of them, get gradients that are not finite."""
    pixels = math.prod(shape.input_shape)
    return [
        lambda: Entry(pixels, 12),
        lambda: Spoiling(12, where),
        lambda: nn.Linear(12, 12),
        lambda: nn.Linear(12, shape.classes),
    ]
