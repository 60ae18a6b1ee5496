"""The optimizer `muon`: torch's Muon on hidden matrices, AdamW on all other parameters.

Muon (Jordan et al., 2024) replaces the momentum of a matrix by the nearest orthogonal matrix, which
a few Newton-Schulz steps approximate. Scaled by 0.2 sqrt(max(rows, columns)) (Liu et al., "Muon is
scalable for LLM training", arXiv 2502.16982) the update is as large as one of AdamW, so that one
learning rate and one weight decay serve both.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_NAME = "muon"
_OF_BOTH = ("lr", "weight_decay")
_OF_MUON = (
    *(*_OF_BOTH, "momentum", "nesterov"),
    *("ns_steps", "ns_coefficients", "adjust_lr_fn"),
)
_OF_ADAMW = (*_OF_BOTH, "betas", "eps")


def is_muon(name: str) -> bool:
    """Tell if the name of an optimizer is that of this one, in upper or lower case."""
    return name.lower() == _NAME


class MuonAndAdamW(torch.optim.Optimizer):
    """Updates the groups with `hidden_matrices` by torch's Muon and all others by torch's AdamW.

    A matrix may have more than two dimensions, as the kernel of a convolution has; it then counts
    as one whose rows are those of its first dimension. The state of a parameter is the one that
    torch's optimizer of it keeps: `momentum_buffer`, a matrix, or `step`, `exp_avg` and
    `exp_avg_sq`.

    Args:
        params: parameters, or groups of them; a plain list is AdamW's.
        lr: learning rate of both halves.
        weight_decay: decoupled weight decay of both halves.
        momentum: momentum of Muon.
        nesterov: whether Muon looks ahead by its momentum.
        ns_steps: Newton-Schulz steps of Muon.
        ns_coefficients: coefficients of a Newton-Schulz step.
        adjust_lr_fn: how Muon scales the rate by the shape, as torch names it.
        betas: decays of AdamW's two averages.
        eps: what AdamW adds to its denominator.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        adjust_lr_fn: str = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        given: dict[str, Any] = {
            **{"lr": lr, "weight_decay": weight_decay, "momentum": momentum},
            **{"nesterov": nesterov, "ns_steps": ns_steps, "ns_coefficients": ns_coefficients},
            **{"adjust_lr_fn": adjust_lr_fn, "betas": betas, "eps": eps},
        }
        # Each half refuses what it does not accept, and updates one group after the other.
        self._muon = torch.optim.Muon(
            [nn.Parameter(torch.zeros(1, 1))],
            **{name: given[name] for name in _OF_MUON},
        )
        self._adamw = torch.optim.AdamW(
            [nn.Parameter(torch.zeros(0))],
            **{name: given[name] for name in _OF_ADAMW},
        )
        super().__init__(params, {**given, "hidden_matrices": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["hidden_matrices"]:
                self._step_of_muon(group)
            else:
                self._step_of_adamw(group)
        return loss

    def _step_of_adamw(self, group: dict[str, Any]) -> None:
        self._adamw.state = self.state
        settings = {**self._adamw.defaults, **{name: group[name] for name in _OF_ADAMW}}
        self._adamw.param_groups = [settings | {"params": group["params"]}]
        self._adamw.step()

    def _step_of_muon(self, group: dict[str, Any]) -> None:
        matrices, states = [], {}
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            matrix = _as_matrix(parameter.detach())
            matrix.grad = _as_matrix(parameter.grad)
            matrices.append((parameter, matrix))
            states[matrix] = self.state[parameter]
        self._muon.state = defaultdict(dict, states)
        settings = {**self._muon.defaults, **{name: group[name] for name in _OF_MUON}}
        self._muon.param_groups = [settings | {"params": [matrix for _, matrix in matrices]}]
        self._muon.step()  # type: ignore[no-untyped-call]
        for parameter, matrix in matrices:
            if matrix.data_ptr() != parameter.data_ptr():
                # Its memory is laid out as no matrix is, such as channels_last.
                parameter.copy_(matrix.view(parameter.shape))
        self._muon.param_groups, self._muon.state = [], defaultdict(dict)


def _as_matrix(tensor: Tensor) -> Tensor:
    """Return a tensor with a row for each of its first dimension, in its own memory if possible."""
    return tensor.reshape(len(tensor), -1)
