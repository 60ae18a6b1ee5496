"""The torch optimizer behind a name."""

from collections.abc import Iterable

import torch
from torch import nn

from hpc_lpm.engine.settings import OptimizerSettings


def build_optimizer(
    parameters: Iterable[nn.Parameter], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """Return the optimizer of one rank's parameters; a stage without parameters is fine."""
    owned = list(parameters) or [nn.Parameter(torch.zeros(0))]
    lr, decay = settings.lr, settings.weight_decay
    match settings.name:
        case "sgd":
            return torch.optim.SGD(owned, lr=lr, weight_decay=decay)
        case "momentum":
            return torch.optim.SGD(owned, lr=lr, momentum=settings.momentum, weight_decay=decay)
        case "adam":
            return torch.optim.Adam(owned, lr=lr, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(owned, lr=lr, weight_decay=decay)
