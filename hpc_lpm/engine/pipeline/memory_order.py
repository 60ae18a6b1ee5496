"""The layout of a tensor in memory, which is kept when tensors cross a boundary."""

from math import prod

import torch
from torch import Tensor


def is_dense(tensor: Tensor) -> bool:
    """Return whether the elements fill one piece of memory without gaps or overlaps."""
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def as_dense(tensor: Tensor) -> Tensor:
    """Return the tensor itself if it is dense, else a contiguous copy."""
    return tensor if is_dense(tensor) else tensor.contiguous()


def flat_memory(tensor: Tensor) -> Tensor:
    """Return the memory of a dense tensor as bytes in the order in which they lie, uint8 [bytes].

    The result shares the tensor's memory.
    """
    elements = prod(tensor.shape)
    return tensor.as_strided((elements,), (1,)).view(torch.uint8)


def with_strides(tensor: Tensor, strides: tuple[int, ...]) -> Tensor:
    """Return the tensor laid out with these strides, without a copy if it has them already."""
    of_any_use = [
        (found, wanted)
        for found, wanted, size in zip(tensor.stride(), strides, tensor.shape, strict=True)
        if size != 1
    ]
    if all(found == wanted for found, wanted in of_any_use):
        return tensor
    laid_out = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
    return laid_out.copy_(tensor)


def one_slice(tensor: Tensor, dimensions: tuple[int, ...]) -> Tensor:
    """Return the first slice along each of some dimensions, which stay, with a size of 1."""
    for dimension in dimensions:
        tensor = tensor.narrow(dimension, 0, 1)
    return tensor
