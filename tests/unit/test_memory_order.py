"""What crosses a boundary goes as it lies in memory."""

import pickle
from collections import deque

import numpy as np
import pytest
import torch
from mpi4py import MPI
from torch import Tensor

from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.pipeline.boundary import BoundarySpec, TensorSpec
from hpc_lpm.engine.pipeline.memory_order import as_dense, flat_memory, is_dense
from hpc_lpm.engine.pipeline.transport.mpi import MpiChannel

IMAGES = torch.randn(2, 3, 4, 5)
DENSE = {
    "contiguous": IMAGES,
    "channels_last": IMAGES.to(memory_format=torch.channels_last),
    "transposed": IMAGES.transpose(1, 3),
    "one channel": torch.randn(2, 1, 4, 5).to(memory_format=torch.channels_last),
    "one pixel": torch.randn(2, 3, 1, 1).to(memory_format=torch.channels_last),
    "bfloat16": IMAGES.bfloat16().to(memory_format=torch.channels_last),
    "scalar": torch.tensor(3.0),
    "empty": torch.zeros(2, 0),
    "offset": torch.randn(9, 3)[4:],
}
WITH_GAPS = {"every other": IMAGES[:, :, ::2, ::2], "expanded": torch.randn(3, 1).expand(3, 4)}


class Wire:
    """An MPI communicator that keeps the memory that it is given."""

    def __init__(self) -> None:
        self.sent: list[torch.Tensor] = []

    def Isend(self, memory, dest: int, tag: int) -> "Wire":  # type: ignore[no-untyped-def]
        self.sent.append(torch.from_numpy(memory))
        return self

    def Test(self) -> bool:
        return True


class Arriving:
    """A request that fills the memory that it is given with the oldest message."""

    def __init__(self, sent: deque[np.ndarray], memory: np.ndarray) -> None:
        self._sent, self._memory = sent, memory

    def Test(self, status: MPI.Status) -> bool:
        message = self._sent.popleft()
        self._memory[: len(message)] = message
        status.Set_elements(MPI.BYTE, len(message))
        return True


class ReturningWire(Wire):
    """An MPI communicator whose messages come back to their sender."""

    def __init__(self) -> None:
        super().__init__()
        self.returning: deque[np.ndarray] = deque()

    def Irecv(self, memory: np.ndarray, source: int, tag: int) -> Arriving:
        return Arriving(self.returning, memory)

    def Isend(self, memory: np.ndarray, dest: int, tag: int) -> Wire:
        self.returning.append(memory.copy())
        return self


@pytest.mark.parametrize("shape", [(2, 3), (2, 0)])
def test_a_missing_tensor_is_told_from_one_that_is_there_and_may_be_empty(
    shape: tuple[int, int],
) -> None:
    channel = MpiChannel(ReturningWire(), 1, 1, receive_timeout_seconds=1)
    tensor = torch.ones(shape)
    (spec,) = BoundarySpec.of(tensor).tensors
    channel.expect([(spec, spec)])
    channel.send((tensor, spec))
    there, missing = channel.receive()
    assert there is not None
    assert torch.equal(there, tensor)
    assert missing is None
    assert channel.bytes_sent == tensor.nbytes


@pytest.mark.parametrize("tensor", DENSE.values(), ids=DENSE.keys())
def test_a_dense_tensor_is_sent_from_its_own_memory_and_received_in_its_own_order(
    tensor: Tensor,
) -> None:
    wire = Wire()
    channel = MpiChannel(wire, 1, 1, receive_timeout_seconds=1)
    spec = BoundarySpec.of(tensor)
    (leaving,) = spec.arranged(tensor)
    channel.send((leaving,))
    (memory,) = wire.sent
    assert memory.data_ptr() == tensor.data_ptr()
    assert channel.bytes_sent == memory.nbytes == tensor.nbytes
    received = pickle.loads(pickle.dumps(spec)).tensors[0].empty()
    flat_memory(received).copy_(memory)
    assert received.stride() == tensor.stride()
    assert received.dtype == tensor.dtype
    assert torch.equal(received, tensor)


@pytest.mark.parametrize("tensor", WITH_GAPS.values(), ids=WITH_GAPS.keys())
def test_a_tensor_with_gaps_or_overlaps_crosses_as_a_contiguous_one(tensor: Tensor) -> None:
    assert not is_dense(tensor)
    assert as_dense(tensor).is_contiguous()
    spec = BoundarySpec.of(tensor).tensors[0]
    leaving = spec.arranged(tensor)
    assert leaving.is_contiguous()
    assert torch.equal(spec.arrived(leaving), tensor)


def test_of_an_expanded_tensor_one_slice_crosses_and_it_arrives_as_expanded() -> None:
    tensor = torch.randn(3, 1, 2).expand(3, 4, 2)
    spec = BoundarySpec.of(tensor).tensors[0]
    leaving = spec.arranged(tensor)
    assert leaving.nbytes == spec.crossing().empty().nbytes == tensor.nbytes // 4
    arrived = spec.arrived(leaving)
    assert arrived.stride() == tensor.stride()
    assert torch.equal(arrived, tensor)
    with pytest.raises(BoundaryError, match=r"the same along its dimensions \(1,\)"):
        spec.arranged(tensor.contiguous())


def test_a_gradient_that_lies_otherwise_is_sent_in_the_order_of_its_activation() -> None:
    activation = DENSE["channels_last"].clone().requires_grad_(), torch.zeros(2, dtype=torch.int64)
    spec = BoundarySpec.of(activation)
    gradient = torch.randn(2, 3, 4, 5)
    (leaving,) = spec.arranged_gradients((gradient,))
    assert leaving.stride() == activation[0].stride()
    assert torch.equal(leaving, gradient)
    (kept,) = spec.arranged_gradients((leaving,))
    assert kept.data_ptr() == leaving.data_ptr()


def test_order_in_memory_is_no_part_of_what_layers_must_return() -> None:
    assert BoundarySpec.of(DENSE["channels_last"]) == BoundarySpec.of(DENSE["contiguous"])
    assert TensorSpec.of(IMAGES) != TensorSpec.of(IMAGES.bfloat16())
