"""The precision that layers compute in, and the order of their tensors in memory."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast, get_args

import torch
from torch import Tensor, nn

from hpc_lpm.activation import Activation, device_of, mapped
from hpc_lpm.errors import InputError
from hpc_lpm.models.losses import Loss
from hpc_lpm.options import MemoryFormat, Precision


@dataclass(frozen=True)
class ComputeFormat:
    """How layers compute; weights, their gradients and the optimizer are always float32.

    `bf16` is torch's automatic mixed precision (`torch.autocast`) in bfloat16. `channels_last`
    keeps four-dimensional tensors [n, channels, height, width] in the order [n, height, width,
    channels] in memory and leaves all others as they are.
    """

    precision: Precision = "fp32"
    memory_format: MemoryFormat = "contiguous"

    @property
    def dtype(self) -> torch.dtype:
        """The type that matrix products and convolutions compute in."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context of a forward pass or a loss; a backward pass needs none.

        A weight is cast again for every operation that reads it. Autocast's cache of casts would
        add up the gradients of all readers in bfloat16, but for leaves only; at a cut, where an
        activation becomes a leaf, the result would then depend on the partition.
        """
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)

    def loss(self, loss: Loss) -> Loss:
        """Return `loss` computed in the same precision as the layers."""
        if self.precision == "fp32":
            return loss

        def in_autocast(outputs: Activation, targets: Activation) -> Tensor:
            with self.autocast(device_of(outputs)):
                return loss(outputs, targets)

        return in_autocast

    def arranged(self, inputs: Activation) -> Activation:
        """Return a model's inputs in this order in memory, without a copy if they already are."""
        return inputs if self.memory_format == "contiguous" else mapped(inputs, _channels_last)

    def arrange(self, layer: nn.Module) -> None:
        """Put a layer's parameters and buffers into this order in memory, in place."""
        if self.memory_format == "contiguous":
            return
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.data = _channels_last(tensor.data)


def _channels_last(tensor: Tensor) -> Tensor:
    # Not `contiguous`, which leaves a single channel's strides, by which kernels are chosen.
    return tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


PLAIN = ComputeFormat()
"""Single precision in torch's usual order."""


def compute_format_named(precision: str, memory_format: str) -> ComputeFormat:
    """Return the compute format with this precision and this memory format.

    Raises:
        InputError: if one of the two is unknown; the message names the option.
    """
    for option, value, accepted in (
        ("--precision", precision, get_args(Precision)),
        ("--memory-format", memory_format, get_args(MemoryFormat)),
    ):
        if value not in accepted:
            raise InputError(f"{option} is {value!r}, accepted are {' and '.join(accepted)}.")
    return ComputeFormat(cast(Precision, precision), cast(MemoryFormat, memory_format))
