"""Copies in host memory of what a checkpoint holds, from which it is written behind training."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hpc_lpm.free_memory import free_memory_bytes
from hpc_lpm.ranks import local_ranks_from_environment


class HostCopies:
    """Memory of one rank for one copy, which is taken for the first and used for all others."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def taken_of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Copy tensors into this memory, where they stay until the next call.

        Returns:
            The copies, in the usual layout; None if the machine has no memory for them. Then
            nothing is held any more.
        """
        self._held = {
            name: held
            for name, held in self._held.items()
            if name in tensors and _fits(held, tensors[name])
        }
        lacking = [name for name in tensors if name not in self._held]
        needed_bytes = sum(tensors[name].nbytes for name in lacking)
        # All ranks of a node ask at the same time.
        if needed_bytes * local_ranks_from_environment() > free_memory_bytes():
            self._held.clear()
            return None
        try:
            for name in lacking:
                tensor = tensors[name]
                # From a GPU, copies into pinned memory go on at once.
                self._held[name] = torch.empty(
                    tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda
                )
        except (MemoryError, RuntimeError):  # as torch's allocator says that there is none
            self._held.clear()
            return None
        for name, tensor in tensors.items():
            self._held[name].copy_(tensor, non_blocking=tensor.is_cuda)
        for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
            torch.cuda.synchronize(device)
        return self._held


def _fits(held: Tensor, tensor: Tensor) -> bool:
    return held.shape == tensor.shape and held.dtype == tensor.dtype
