"""Keeps DeepSpeed's constructor from sending parameters that are equal on all replicas."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def equal_on_replicas(module: nn.Module) -> Iterator[None]:
    """Keep a DeepSpeed engine that is built meanwhile from sending parameters to its replicas.

    They are equal already, since they depend on the seed alone, and DeepSpeed fails at those
    without dimensions.
    """
    parameters = list(module.parameters())
    for parameter in parameters:
        # So DeepSpeed marks what is not to be sent.
        parameter.ds_optim_param = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for parameter in parameters:
            del parameter.ds_optim_param  # type: ignore[attr-defined]
