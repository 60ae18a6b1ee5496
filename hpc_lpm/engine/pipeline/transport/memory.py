"""The memory that a transport sends messages from and receives them into."""

from typing import Protocol

import torch
from torch import Tensor

from hpc_lpm.engine.pipeline.boundary import TensorSpec
from hpc_lpm.engine.pipeline.memory_order import as_dense, flat_memory


class MessageMemory(Protocol):
    """Prepares tensors for a transport, and takes over what it has received.

    `device` is where a stage's tensors are.
    """

    device: torch.device

    def leaving(self, tensor: Tensor) -> Tensor:
        """Return the tensor, dense and computed, in memory that the transport can read."""

    def buffer(self, spec: TensorSpec) -> Tensor:
        """Return uninitialised memory that the transport may write to from now on."""

    def arrived(self, buffer: Tensor) -> Tensor:
        """Return a filled buffer's tensor on the stage's device."""


class HostMemory:
    """For stages on CPUs: messages are sent from and received into the tensors' own memory."""

    device = torch.device("cpu")

    def leaving(self, tensor: Tensor) -> Tensor:
        """Return the tensor itself, or a copy if it has gaps in memory."""
        return as_dense(tensor.detach())

    def buffer(self, spec: TensorSpec) -> Tensor:
        """Return ordinary memory."""
        return spec.empty()

    def arrived(self, buffer: Tensor) -> Tensor:
        """Return the buffer itself."""
        return buffer


class StagedMemory:
    """For stages on GPUs under a transport of host memory: copies through page-locked buffers.

    Sending waits until the tensor is computed. torch reuses page-locked memory, but not before the
    copies out of it are done.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def leaving(self, tensor: Tensor) -> Tensor:
        """Copy the tensor to the host and wait for the copy."""
        dense = as_dense(tensor.detach())
        staged = torch.empty_strided(
            dense.shape, dense.stride(), dtype=dense.dtype, pin_memory=True
        )
        staged.copy_(dense, non_blocking=True)
        torch.cuda.current_stream(self.device).synchronize()
        return staged

    def buffer(self, spec: TensorSpec) -> Tensor:
        """Return page-locked memory."""
        return spec.empty(pin_memory=True)

    def arrived(self, buffer: Tensor) -> Tensor:
        """Start the copy to the device, before whatever the stage computes next."""
        return buffer.to(self.device, non_blocking=True)


class DeviceMemory:
    """For stages on GPUs under a transport that reads and writes device memory.

    A transport that ignores CUDA's streams (MPI) is given memory only once the stream has finished
    with it: until then a tensor may not be computed yet, and memory that was freed may still be
    read.
    """

    def __init__(self, device: torch.device, *, knows_streams: bool) -> None:
        self.device = device
        self._knows_streams = knows_streams

    def leaving(self, tensor: Tensor) -> Tensor:
        """Return the tensor itself, or a copy if it has gaps in memory."""
        ready = as_dense(tensor.detach())
        self._settle()
        return ready

    def buffer(self, spec: TensorSpec) -> Tensor:
        """Return device memory."""
        empty = spec.empty(device=self.device)
        self._settle()
        return empty

    def arrived(self, buffer: Tensor) -> Tensor:
        """Return the buffer itself."""
        return buffer

    def _settle(self) -> None:
        if not self._knows_streams:
            torch.cuda.current_stream(self.device).synchronize()


def as_bytes(tensor: Tensor) -> Tensor:
    """Return the memory of a dense tensor as bytes, detached from its graph and not copied."""
    return flat_memory(tensor.detach())
